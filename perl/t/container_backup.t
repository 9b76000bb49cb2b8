#!/usr/bin/perl -T

# A container's backup: prepared by the task, done by a fork of it in a user namespace.

use strict;
use warnings;

use POSIX ();
use Test::More;

use Bench;

# Runs a sub in a fork, in a user namespace of its own if there can be one; returns what it died with.
sub in_user_namespace {
    my ($code, $namespace) = @_;
    pipe(my $read, my $write) or die $!;
    my $pid = fork() // die $!;
    if ($pid == 0) {
        my $told = eval {
            # unshare(CLONE_NEWUSER)
            syscall(272, 0x10000000) == 0 or die "no user namespace: $!\n" if $namespace;
            my $result = $code->();
            defined($result) ? "result $result" : 'undef';
        } // "died: $@";
        syswrite($write, $told);
        POSIX::_exit(0);
    }
    close($write);
    my $told = do { local $/ = undef; <$read> };
    waitpid($pid, 0);
    return $told;
}

my $info = { directory => '/mnt/vzsnap0', sources => ['./', './mnt/b'], 'backup-user-id' => 100000, 'firewall-config' => '' };
my $excludes = ['/tmp/?*', "b\xc3\xbccher"];
script(backup_init => { result => { 'archive-name' => 'vzdump-lxc-101-2026-01-02T03_04_05Z-0123456789abcdef' } },
    backup_get_mechanism => { result => { mechanism => 'directory', bitmap => undef } });

my $provider = provider();
$provider->job_init(1000);
for my $namespace (1, 0) {
    $provider->backup_init(101, 'lxc', 1001);
    is($provider->backup_get_mechanism(101, 'lxc'), 'directory', 'a container is read from a folder');
    $provider->backup_container_prepare(101, $info);
    my $told = in_user_namespace(sub { $provider->backup_container(101, "arch: amd64\n", $excludes, $info) }, $namespace);
    is($told, 'undef', 'the backup in the fork returns nothing');
    is_deeply($provider->backup_cleanup(101, 'lxc', 1, {}), { stats => { 'archive-size' => 4711 } }, 'the task goes on');
}
$provider->backup_container_prepare(101, $info);
is($provider->backup_container(101, "arch: amd64\n", $excludes, $info), undef, 'a privileged one runs in the task');
$provider->backup_cleanup(101, 'lxc', 1, {});
$provider->job_cleanup();

my @calls = calls();
is((grep { $_->{call} eq 'hello' } @calls), 1, 'all speak to one child');
my ($prepared) = grep { $_->{call} eq 'backup_container_prepare' } @calls;
is_deeply($prepared->{args}->{sources}, ['./', './mnt/b'], 'the sources are told');
is($prepared->{args}->{firewall_config}, '', 'an empty firewall file is told as it is');
my @walked = map { $_->{text} } grep { $_->{call} eq 'walked' } @calls;
is(scalar(@walked), 3, 'three walkers spoke over the socket');
like($walked[0], qr/map\z/, 'the first one in a user namespace without a map');
like($walked[2], qr/map 0 0 4294967295\z/, 'the last one in the task');
my ($backup) = grep { $_->{call} eq 'backup_container' } @calls;
is_deeply($backup->{args}->{exclude}, ['/tmp/?*', "b\x{fc}cher"], 'patterns are text');
isnt($backup->{args}->{pid}, $$, 'the process that runs it is told');

# The child fails, or the walker cannot be started: the fork dies, so that its caller sees it.
script(backup_container => { error => 'the tree is damaged' });
$provider->backup_container_prepare(101, $info);
my $told = in_user_namespace(sub { $provider->backup_container(101, '', $excludes, $info) }, 0);
is($told, "died: the tree is damaged (the walker said: walker's words)\n", 'an error has the words of the walker');
like(in_user_namespace(sub { $provider->backup_container(102, '', [], $info) }, 0), qr/died: /, 'again needs a preparation')
    if !delete $provider->{walker};

# The fork is killed while it waits. The task's child is still there.
script(backup_container => { log => [['info', 'reading']], hang => 0 });
$provider->backup_container_prepare(101, $info);
my $pid = fork() // die $!;
if ($pid == 0) {
    $provider->{log} = undef;
    $provider->{bridge}->{log} = sub { kill('KILL', $$) };
    $provider->backup_container(101, '', [], $info);
    POSIX::_exit(0);
}
waitpid($pid, 0);
is($? & 127, 9, 'the fork was killed');
script(backup_cleanup => { error => 'nothing was committed' });
ok(!eval { $provider->backup_cleanup(101, 'lxc', 1, {}); 1 }, 'its end is no success');
is($@, "nothing was committed\n", 'as the child says; the answer for the fork was skipped');

# Or in the middle of a line: the task gets the rest of it.
script(backup_cleanup => { raw => qq(ding"}\n) });
$provider->backup_container_prepare(101, $info);
ok(eval { $provider->backup_cleanup(101, 'lxc', 1, {}); 1 }, 'the rest of a line that the fork began to read is skipped');

done_testing();
