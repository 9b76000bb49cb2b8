#!/usr/bin/perl -T

# The caller's half of the kill table with the real program: the caller is ended by SIGTERM, or killed, when it has made
# a call. The program takes everything down, keeps what was committed and nothing else, and the next call works.

use strict;
use warnings;

use POSIX ();
use Test::More;

use Bench;
use Flows qw(flows run_step storage_calls whole_flow);
use Killing qw(adopt_orphans arm gather in_user_namespace kill_caller left_behind limited rows %counted);
use Real qw(archives needs real_context real_scfg run_program server);

needs('kill_table_real', '/usr/bin/qemu-nbd');
alarm(600);
adopt_orphans();

# Archives that restores need, and all that are there.
my (@kept, %known);
my ($new, $guests) = (0, 0);

sub context {
    my ($row, $slow) = @_;
    my $context = real_context(slow => $slow, in_container => \&in_user_namespace);
    # Archives of one guest wait until the second of the last one is over.
    $context->{vmid} = $context->{ctid} = 1000 + $guests++;
    $context->{vm_volname} = $kept[0];
    $context->{ct_volname} = $kept[1];
    $context->{volname} = sub { return $kept[0] };
    $context->{freed} = sub { return (archives())[0] };
    my $folder = folder() . "/store/new-$new";
    $context->{new_scfg} = sub { return real_scfg('snapkeep-repository' => $folder)->%* };
    return $context;
}

# Adding a storage once more begins with neither of its files, as an administrator would.
sub forget_new {
    unlink(map { folder() . "/secrets/new.$_" } qw(snapkeep-key snapkeep-recovery-kit));
    return;
}

sub caller_ends {
    my ($row, $signal) = @_;
    my @problems;
    my $reads = $row->{call} =~ m/\Abackup_(?:vm|container)\z/;
    my $told = eval {
        limited(sub { kill_caller($row, sub { context($row, $reads) }, sub { arm($row->{call}, $row->{nth}, $signal) }) });
    };
    push @problems, "it did not end: $@" if $@;
    push @problems, "the call $told" if $signal eq 'TERM' && ($told // '') ne "died interrupted by signal\n";
    push @problems, "the caller was not killed: $told" if $signal eq 'KILL' && defined($told);
    push @problems, map { "process $_ was left" } gather(server());
    push @problems, map { "$_ was left" } left_behind();
    my @new = grep { !$known{$_}++ } archives();
    my $expected = grep { $_->{call} =~ m/\Abackup_(?:vm|container)\z/ } $row->{before}->@*;
    push @problems, @new . " new archives and not $expected" if @new != $expected;
    my $context = context($row);
    eval { limited(sub { run_step($_, $context) for $row->{before}->@*, $row->{step} }); 1 } or push @problems, "the next one: $@";
    $known{"backup/$context->{name}"} = 1 if defined($context->{name});
    undef $context;
    push @problems, map { "process $_ was left by the next one" } gather(server());
    forget_new() if $row->{call} eq 'storage_create';
    $new++;
    return @problems;
}

@kept = (whole_flow('machine by nbd', context()), whole_flow('container in its user namespace', context()));
$known{$_} = 1 for archives();
my %ways = ('the caller is ended by SIGTERM' => 'TERM', 'the caller is killed' => 'KILL');
my @rows = rows(flows(), storage_calls());
for my $row (@rows) {
    for my $way (sort keys %ways) {
        my @problems = caller_ends($row, $ways{$way});
        is(join('; ', @problems), '', "$row->{flow}, $row->{step}->{sub}, during $row->{call}: $way");
    }
}
ok(run_program('verify'), 'all archives are whole');
my $calls = @rows;
my $ways = keys %ways;
diag("kill table, real program: $calls calls x $ways ways, $counted{hangs} hangs, $counted{leftovers} leftovers");

done_testing();
