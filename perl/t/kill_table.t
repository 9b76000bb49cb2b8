#!/usr/bin/perl -T

# The kill table: at each call of each caller, the child is killed, or hangs up, or the caller is ended by SIGTERM or
# killed. The child is the fake one here, which gets the signal's moment right: the caller waits for the answer.

use strict;
use warnings;

use IO::File;
use POSIX ();
use Test::More;

use Bench;
use Flows qw(flows run_step storage_calls);
use Killing qw(adopt_orphans gather in_user_namespace kill_caller left_behind limited rows signals %counted);

alarm(600);
adopt_orphans();

my $ct_archive = 'vzdump-lxc-101-2026-01-02T03_04_05Z-0123456789abcdef';

open(my $log, '>', folder() . '/log');
close($log);

# What the calls are made with.
sub context {
    my $handles = sub {
        local $!;
        my @regions = ([0, 1024]);
        return { 'drive-scsi0' => { size => 1024, 'bitmap-mode' => 'new', 'file-handle' => IO::File->new('/dev/null', 'r'),
            'next-dirty-region' => sub { return (shift(@regions) // [])->@* } } };
    };
    return {
        provider => provider(), time => 1000, vmid => 100, ctid => 101, config => "name: a\n", vm_info => {},
        ct_info => { directory => '/mnt/vzsnap0', sources => ['./'], 'backup-user-id' => 100000, 'firewall-config' => '' },
        devices => { 'drive-scsi0' => { size => 1024 } },
        volumes => sub { return { 'drive-scsi0' => { size => 1024, 'bitmap-mode' => 'none', 'nbd-path' => '/run/x' } } },
        handles => $handles, device => 'drive-scsi0', log => folder() . '/log', in_container => \&in_user_namespace,
        vm_volname => 'backup/' . ARCHIVE, ct_volname => "backup/$ct_archive", storeid => STOREID,
        plugin => 'PVE::Storage::Custom::SnapkeepPlugin', scfg => scfg(), new_scfg => sub { return scfg()->%* }, key => 'k',
        volname => sub { return 'backup/' . ARCHIVE }, freed => sub { return 'backup/' . ARCHIVE },
    };
}

my %answers = (storage_get => { result => { archive => ARCHIVE, size => 5, protected => 0 } });

# What the child does with the call of a row.
sub prepare { my ($row, %todo) = @_; script(%answers, $row->{call} => { ($answers{ $row->{call} } // {})->%*, %todo }); return; }

# The rest of a job after a guest that failed, with another guest; or the same once more.
sub go_on {
    my ($row, $context) = @_;
    script(%answers);
    my $provider = $context->{provider};
    if ($row->{flow} =~ m/\A(?:machine|container)/) {
        my @failed = $row->{flow} =~ m/\Amachine/ ? (100, 'qemu') : (101, 'lxc');
        $provider->backup_cleanup(@failed, 0, { error => 'it failed' });
        $provider->backup_handle_log_file($failed[0], $context->{log});
        $provider->job_init(1000) if $row->{step}->{call} =~ m/\Ajob_/;
        $provider->backup_init(200, 'qemu', 1001);
        $provider->backup_vm(200, '', {}, {});
        $provider->backup_cleanup(200, 'qemu', 1, {});
        my $made = calls_of(calls());
        # Another child, which is told of the job.
        die "the next guest got $made\n" if $made !~ m/job_init (?:backup_cleanup )?(?:backup_handle_log_file )?backup_init backup_vm backup_cleanup\z/;
        $provider->job_cleanup();
    } else {
        run_step($_, $context) for $row->{before}->@*, $row->{step};
    }
    return;
}

sub child_ends {
    my ($row, $end) = @_;
    my ($step, $context, @problems) = ($row->{step}, context());
    prepare($row, end => $end, nth => $row->{nth});
    run_step($_, $context) for $row->{before}->@*;
    told_logs();
    calls();
    my $before = signals();
    my ($kept, $status, $number) = ('', 0, 0);
    my $done = eval {
        limited(sub {
            $@ = "kept\n";
            $? = 256;
            $! = 7;
            run_step($step, $context);
            $kept = $@;
        });
        1;
    };
    my $error = $@;
    ($status, $number) = ($?, 0 + $!);
    push @problems, '$? is ' . $status if $status != 256;
    push @problems, '$! is ' . $number if $number != 7;
    push @problems, 'signal handlers changed' if signals() ne $before;
    my @logs = told_logs();
    if ($step->{dies}) {
        push @problems, 'it did not die' if $done;
        my $how = $end eq 'kill' ? 'signal 9' : 'exit status 0';
        push @problems, "it died with $error" if $error !~ m/\A[^\n]* ended early(?: \($how\))?, during $row->{call}(?: \(the walker said: .*\))?\n\z/;
        push @problems, "it is not named: $error" if $error !~ $step->{about};
    } else {
        push @problems, "it died with $error" if !$done;
        push @problems, '$@ is ' . $kept if $done && $kept ne "kept\n";
        push @problems, "it logged @logs" if @logs != 1 || $logs[0] !~ m/\Awarn: $step->{call}: .*ended early/;
    }
    eval { limited(sub { go_on($row, $context) }); 1 } or push @problems, "afterwards: $@";
    # One that has ended, and was not waited for.
    push @problems, 'a zombie was left' if waitpid(-1, POSIX::WNOHANG()) > 0;
    undef $context;
    push @problems, 'a process was left' if gather();
    calls();
    return @problems;
}

sub caller_ends {
    my ($row, $signal) = @_;
    my @problems;
    calls();
    prepare($row, signal => $signal, hang => 1, nth => $row->{nth});
    my $told = eval { limited(sub { kill_caller($row, \&context, sub { }) }) };
    push @problems, "it did not end: $@" if $@;
    push @problems, "the call $told" if $signal eq 'TERM' && ($told // '') ne "died interrupted by signal\n";
    push @problems, "the caller was not killed: $told" if $signal eq 'KILL' && defined($told);
    push @problems, map { "process $_ was left" } gather();
    push @problems, map { "$_ was left" } left_behind();
    my %noted;
    $noted{ $_->{call} }++ for calls();
    my $ended = ($noted{end} // 0) + ($noted{cancelled} // 0);
    push @problems, "of $noted{hello} children $ended saw the end" if ($noted{hello} // 0) != $ended;
    my $context = context();
    eval { limited(sub { script(%answers); run_step($_, $context) for $row->{before}->@*, $row->{step} }); 1 }
        or push @problems, "the next one: $@";
    undef $context;
    gather();
    return @problems;
}

my %ways = (
    'the child is killed' => sub { child_ends($_[0], 'kill') },
    'the child hangs up' => sub { child_ends($_[0], 'close') },
    'the caller is ended by SIGTERM' => sub { caller_ends($_[0], 'TERM') },
    'the caller is killed' => sub { caller_ends($_[0], 'KILL') },
);
my @rows = rows(flows(), storage_calls());
for my $row (@rows) {
    for my $way (sort keys %ways) {
        my @problems = $ways{$way}->($row);
        is(join('; ', @problems), '', "$row->{flow}, $row->{step}->{sub}, during $row->{call}: $way");
    }
}
my $calls = @rows;
my $ways = keys %ways;
diag("kill table: $calls calls x $ways ways, $counted{hangs} hangs, $counted{leftovers} leftovers");

done_testing();
