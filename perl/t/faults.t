#!/usr/bin/perl -T

# A child that is killed, odd callers, signals: each guest's failure is its own.

use strict;
use warnings;

use POSIX ();
use Test::More;

use Bench;

my %of = (
    backup_init => sub { $_[0]->backup_init(100, 'qemu', 1) },
    backup_get_mechanism => sub { $_[0]->backup_get_mechanism(100, 'qemu') },
    backup_vm_query_incremental => sub { $_[0]->backup_vm_query_incremental(100, { d => { size => 1 } }) },
    backup_vm => sub { $_[0]->backup_vm(100, '', {}, {}) },
    backup_cleanup => sub { $_[0]->backup_cleanup(100, 'qemu', 1, {}) },
    restore_vm_init => sub { $_[0]->restore_vm_init('backup/x') },
);
# As a task has them.
$SIG{$_} = sub { die "interrupted by signal\n" } for qw(INT TERM QUIT HUP PIPE);

for my $name (sort keys %of) {
    for my $end (qw(kill exit)) {
        script($name => { end => $end });
        my $provider = provider();
        $provider->job_init(1);
        ok(!eval { $of{$name}->($provider); 1 }, "$name fails if the child ends ($end)");
        my $how = $end eq 'kill' ? 'signal 9' : 'exit status 3';
        like($@, qr/fake-snapkeep ended early \(\Q$how\E\), during $name\n\z/, 'and says who ended, and how');
        script();
        calls();
        ok(eval { $of{$name}->($provider); 1 }, 'the next guest has a new child');
        is(calls_of(calls()), "job_init $name", 'which is told of the job');
    }
}

{
    my $provider = provider();
    $provider->job_init(1);
    kill('KILL', $provider->{bridge}->{pid});
    waitpid($provider->{bridge}->{pid}, 0);
    ok(eval { $provider->backup_init(100, 'qemu', 1); 1 }, 'a child that was killed between calls is replaced');
    calls();
    script(backup_vm => { log => [['info', 'reading']], hang => 1 });
    local $provider->{bridge}->{log} = sub { kill('TERM', $$) };
    open(my $copy, '+<&', $provider->{bridge}->{socket}) or die $!;
    ok(!eval { $provider->backup_vm(100, '', {}, {}); 1 }, 'a signal ends a call');
    is($@, "interrupted by signal\n", 'with what its handler died with');
    is((grep { $_->{call} eq 'cancelled' } calls()), 1, 'and the child sees its end, whoever holds a copy of the socket');
    script();
    ok(eval { $provider->backup_cleanup(100, 'qemu', 0, { error => 'interrupted' }); 1 }, 'the cleanup is no trouble');
    $provider->backup_handle_log_file(100, '/nowhere');
}

# SIGPIPE's handler of a task would tell of a user who interrupted it.
{
    my $bridge = provider()->{bridge};
    $bridge->call('job_init', { start_time => 1 });
    shutdown($bridge->{socket}, 1);
    ok(!eval { $bridge->put("x\n", undef); 1 }, 'what nobody reads cannot be sent');
    like($@->{snapkeep}, qr/ended early/, 'and is no interruption');
}

{
    my $provider = provider();
    script(backup_init => { stale => 1, log => [['info', "one\ntwo"], ['odd', 'three'], ['warn', '']] });
    $@ = "kept\n";
    $? = 256;
    is($provider->backup_init(100, 'qemu', 1)->{'archive-name'}, ARCHIVE, 'answers to others are skipped');
    is($@, "kept\n", '$@ is kept');
    is($?, 256, '$? is kept');
    $? = 0;
    is_deeply([told_logs()], ['info: one two', 'err: three'], 'log lines are lines; an empty one is none');
    script(backup_init => { raw => "no message\n" });
    ok(!eval { $provider->backup_init(100, 'qemu', 1); 1 }, 'what is no message is an error');
    script(backup_init => { raw => qq({"id": "", "error": {"kind": "protocol", "message": "too long"}}\n) });
    ok(!eval { $provider->backup_init(100, 'qemu', 1); 1 }, 'what the child could not read is an error');
    is($@, "guest 100: backup_init: too long\n", 'in its words');
    script(backup_init => { error => "b\x{fc}cher\x{2603}" });
    ok(!eval { $provider->backup_init(100, 'qemu', 1); 1 }, 'an error is an error');
    is($@, "b\xc3\xbccher\xe2\x98\x83\n", 'as bytes of a line');
    script(job_cleanup => { error => 'a' }, backup_handle_log_file => { error => 'b' }, backup_cleanup => { error => 'c' });
    open(my $log, '>', folder() . '/log');
    close($log);
    $provider->backup_cleanup(1, undef, 0, {});
    $provider->backup_handle_log_file(1, folder() . '/log');
    $provider->job_cleanup();
    is_deeply([told_logs()], ['warn: backup_cleanup: c', 'warn: backup_handle_log_file: b', 'warn: job_cleanup: a'],
        'cleanups and log files never die');
    script();
    calls();
    $provider->backup_handle_log_file(1, folder() . '/absent');
    is(calls_of(calls()), '', 'an absent log file is nothing');
}

# A log function that dies as a signal handler would, and a fork that uses the object.
{
    my $provider = provider();
    $provider->job_init(1);
    my $pid = fork() // die $!;
    if ($pid == 0) {
        my $ok = eval { $provider->archive_get_guest_config('backup/x') eq "name: a\n" };
        POSIX::_exit($ok ? 0 : 1);
    }
    waitpid($pid, 0);
    is($?, 0, 'a fork has a child of its own');
    ok(eval { $provider->backup_init(100, 'qemu', 1); 1 }, 'and ours is still there');
    my @calls = calls();
    is((grep { $_->{call} eq 'hello' } @calls), 2, 'they are two');
}

for my $program ('/nowhere/snapkeep', '/etc/passwd') {
    my $provider = provider('snapkeep-program' => $program);
    ok(!eval { $provider->job_init(1); 1 }, "the program $program cannot be started");
    like($@, qr/\Acannot start \Q$program\E: /, 'and is named');
    $provider->job_cleanup();
}
like(eval { provider('snapkeep-program' => 'snapkeep')->job_init(1) } // $@, qr/no.* absolute path/, 'its path is absolute');
like(eval { provider('snapkeep-program' => '/bin/true')->job_init(1) } // $@, qr/ended early/, 'another program is an error');
script(hello => { result => { version => 2 } });
like(eval { provider()->job_init(1) } // $@, qr/speaks version 2/, 'and so is another version');
script();

{
    my $provider = provider();
    my $longest = 'x' x (13 * 1024 * 1024);
    ok(!eval { $provider->backup_vm(100, $longest, {}, {}); 1 }, 'too long a call is refused');
    ok(eval { $provider->backup_vm(100, substr($longest, 0, 11 * 1024 * 1024), {}, {}); 1 }, 'a long one is not');
}

# All children are gone with their objects.
is(waitpid(-1, POSIX::WNOHANG()), -1, 'no child is left');

done_testing();
