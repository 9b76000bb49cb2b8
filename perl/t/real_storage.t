#!/usr/bin/perl -T

# What goes wrong around a storage, with the real program: a repository that hangs, folders of others, secrets that
# somebody might see. docs/TESTING.md names these tests.

use strict;
use warnings;

use IO::File;
use JSON;
use POSIX ();
use Test::More;
use Time::HiRes qw(CLOCK_MONOTONIC clock_gettime sleep);

use Bench;
use Flows qw(flows run_step whole_flow);
use Killing qw(gather in_user_namespace left_behind);
use Real qw(archives content key_path needs program real_context real_scfg server);

needs('real_storage', '/usr/bin/qemu-nbd', '/usr/bin/umount');
alarm(600);

my $plugin = 'PVE::Storage::Custom::SnapkeepPlugin';
my @logged;

sub context {
    return real_context(log => sub { push @logged, "$_[0]: $_[1]" }, in_container => \&in_user_namespace, @_);
}

sub died { my ($code) = @_; return eval { $code->(); 1 } ? '' : $@; }

sub written {
    my ($path, $bytes) = @_;
    open(my $file, '>:raw', $path) or die $!;
    print $file $bytes;
    close($file);
    return;
}

# The program, started to run on; its process ID.
sub start {
    my (@arguments) = @_;
    my $pid = fork() // die $!;
    if ($pid == 0) {
        open(STDOUT, '>', '/dev/null');
        open(STDERR, '>', folder() . '/mount.err');
        no warnings 'exec';
        exec { program() } program(), @arguments;
        POSIX::_exit(127);
    }
    return $pid;
}

# Who serves a mount, and where.
my ($serving, $mount);

END {
    if ($serving) {
        local $?;
        kill('KILL', $serving);
        waitpid($serving, 0);
        system('/usr/bin/umount', '-l', $mount);
    }
}

my $machine = whole_flow('machine by nbd', context());

# A repository on a file system that somebody serves who then stops: the mount of a container's archive, in which
# there is a file `config`.
subtest 'the repository hangs: status answers from its note, and says later that it is not active' => sub {
    written(folder() . '/tree/config', 'as a repository has it');
    whole_flow('container in the task', context());
    $mount = folder() . '/mounted';
    mkdir($mount);
    my $pid = $serving = start('-r', folder() . '/store/repository', '--key-file', key_path(), '--namespace', 'pve', 'mount', $mount);
    my $config;
    for (1 .. 3000) {
        ($config) = glob("$mount/pve/ct/*/*/config $mount/ct/*/*/config $mount/*/ct/*/*/*/config $mount/pve/ct/*/*/*/config");
        last if defined($config) && -e $config;
        die 'the mount ended: ' . content(folder() . '/mount.err') if waitpid($pid, POSIX::WNOHANG()) != 0;
        sleep(0.01);
    }
    my ($repository) = ($config // '') =~ m!\A(/.*)/config\z! or die "no archive in the mount\n";
    my $scfg = real_scfg('snapkeep-repository' => $repository);
    my @before = $plugin->status('hanging', $scfg, {});
    is($before[3], 1, 'it is active while it answers');
    kill('STOP', $pid);
    my $asked = clock_gettime(CLOCK_MONOTONIC);
    my @hanging = $plugin->status('hanging', $scfg, {});
    my $seconds = clock_gettime(CLOCK_MONOTONIC) - $asked;
    diag(sprintf('status of a repository that hangs: answered after %.2f s', $seconds));
    is_deeply(\@hanging, \@before, 'then the note answers');
    my $place = folder() . '/run/status/hanging.json';
    my $note = JSON->new->utf8->decode(content($place));
    written($place, JSON->new->utf8->encode({ %$note, time => $note->{time} - 61 }));
    is_deeply([$plugin->status('hanging', $scfg, {})], [0, 0, 0, 0], 'for a minute');
    like(died(sub { $plugin->activate_storage('hanging', $scfg, {}) }), qr/\Astorage 'hanging': [^\n]+\n\z/, 'then it cannot be activated');
    unlink($place);
    is_deeply([$plugin->status('hanging', $scfg, {})], [0, 0, 0, 0], 'without a note it is not active');
    is_deeply([gather(server(), $pid)], [], 'and nobody is left waiting');
    kill('CONT', $pid);
    kill('TERM', $pid);
    waitpid($pid, 0);
    undef $serving;
    is_deeply([left_behind()], [], 'no mount is left');
};

subtest 'the folder for mounts: others may write in it, it is another user\'s, or a link' => sub {
    my $run = folder() . '/run';
    my $context = context();
    rename($run, "$run-kept") or die $!;
    my %bad = (
        'others may write' => sub { mkdir($run); chmod(0777, $run) },
        'is another user' => sub { mkdir($run, 0700); chown(12345, 12345, $run) },
        'is no folder' => sub { symlink("$run-kept", $run) },
    );
    for my $why (sort keys %bad) {
        $bad{$why}->();
        $context->{provider}->restore_vm_init($machine);
        my $error = died(sub { $context->{provider}->restore_vm_volume_init($machine, 'drive-scsi0', {}) });
        like($error, qr/\A[^\n]*\Q$run\E cannot be used: [^\n]*\Q$why\E[^\n]*\n\z/, $why);
        $context->{provider}->restore_vm_cleanup($machine);
        unlink($run) or rmdir($run) or die $!;
    }
    rename("$run-kept", $run) or die $!;
};

subtest 'folders of processes whose number another has by now are removed, others are not touched' => sub {
    my $run = folder() . '/run';
    # This process's number, but not its start.
    my $dead = "$run/$$-1-0123456789abcdef";
    mkdir($_) for $dead, "$dead/0", "$run/somebody's", "$run/$$-1-0123456789abcdef-x";
    my $context = context();
    $context->{provider}->restore_vm_init($machine);
    $context->{provider}->restore_vm_volume_init($machine, 'drive-scsi0', {});
    ok(!-e $dead, 'one of the dead is gone');
    ok(-d "$run/somebody's", 'what has no such name stays');
    $context->{provider}->restore_vm_cleanup($machine);
    rmdir($_) for "$run/somebody's", "$run/$$-1-0123456789abcdef-x";
    is_deeply([left_behind()], [], 'no other is left');
};

subtest 'nobody has a socket to come to: the conversation has no path' => sub {
    my $context = context();
    $context->{provider}->job_init(time());
    my $pid = $context->{provider}->{bridge}->{pid};
    my %inodes = map { m/socket:\[([0-9]+)\]/ ? ($1 => 1) : () } map { readlink($_) // '' } glob("/proc/$pid/fd/*");
    my @named = grep { my @fields = split(' ', $_); $inodes{ $fields[6] // '' } && defined($fields[7]) }
        split(/\n/, content('/proc/net/unix'));
    is_deeply(\@named, [], 'none of the child\'s');
    $context->{provider}->job_cleanup();
};

# A secret of each kind, looked for wherever somebody could see it while everything runs.
subtest 'secrets are in no process list, environment, log, storage.cfg or error' => sub {
    my ($passphrase, $key) = ('correct-horse-battery-staple', content(key_path()));
    chomp($key);
    my ($secret) = $key =~ m/([A-Za-z0-9+\/=_-]{20,})/;
    my $scfg = real_scfg('snapkeep-repository' => folder() . '/store/secret', 'snapkeep-create' => 1);
    my $printed = '';
    {
        open(my $to, '>', \$printed) or die $!;
        my $before = select($to);
        $plugin->on_add_hook('secret', $scfg, password => $passphrase);
        select($before);
    }
    my $kit = content(folder() . '/secrets/secret.snapkeep-recovery-kit');
    my ($in_kit) = $kit =~ m/([A-Za-z0-9+\/=_-]{20,})/;
    my @secrets = grep { defined($_) } $passphrase, $secret, $in_kit;
    cmp_ok(scalar(@secrets), '>=', 2, 'there are secrets');
    my ($seen, $context) = ('', undef);
    my $look = sub {
        for my $pid (grep { defined($_) } $$, $context ? $context->{provider}->{bridge}->{pid} : undef) {
            $seen .= content("/proc/$pid/cmdline") . content("/proc/$pid/environ");
        }
    };
    for my $storage (['secret', $scfg], [STOREID, real_scfg()]) {
        $context = context();
        $context->{provider} = $plugin->new_backup_provider($storage->[1], $storage->[0], sub { push @logged, "@_"; $look->() });
        my ($flow) = grep { $_->[0] eq 'machine by nbd' } flows();
        my (undef, @steps) = @$flow;
        for my $step (@steps) {
            run_step($step, $context);
            $look->();
        }
        undef $context;
    }
    my @errors = map { died($_) }
        sub { $plugin->on_update_hook_full('secret', $scfg, {}, undef, { password => "$passphrase-wrong" }) },
        sub { $plugin->on_update_hook_full('secret', $scfg, {}, undef, { 'snapkeep-key' => $key }) },
        sub { $plugin->on_update_hook_full('secret', $scfg, {}, ['password'], { password => undef, 'snapkeep-key' => $key }) },
        sub { $plugin->on_add_hook('third', real_scfg(), password => $passphrase) };
    is((grep { m/\A[^\n]+\n\z/ } @errors), 4, 'wrong ones are errors of a line');
    my %places = (processes => $seen, 'what is printed' => $printed, logs => "@logged", errors => "@errors",
        'storage.cfg' => join(' ', %$scfg));
    for my $place (sort keys %places) {
        ok(length($places{$place}), "$place: there is something to look at");
        my @found = grep { index($places{$place}, $_) >= 0 } @secrets;
        is(scalar(@found), 0, "$place: no secret is there");
    }
    for my $file (glob(folder() . '/secrets/*')) {
        is((stat($file))[2] & 0777, 0600, ($file =~ s!.*/!!r) . ' is for root alone') if $file !~ m/\.snapkeep-key\z/;
    }
};

is_deeply([left_behind()], [], 'no mount is left');
is_deeply([gather(server())], [], 'no process is left');

done_testing();
