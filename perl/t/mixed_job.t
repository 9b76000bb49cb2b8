#!/usr/bin/perl -T

# A job over several guests of both types, some of which fail: the others are backed up.

use strict;
use warnings;

use Test::More;

use Bench;

# As the caller does it: an error goes to the cleanup and to the log file's turn, and the next guest comes.
sub back_up {
    my ($provider, $vmid, $vmtype) = @_;
    my $ok = eval {
        $provider->backup_init($vmid, $vmtype, 1001);
        my $mechanism = $provider->backup_get_mechanism($vmid, $vmtype) or die "no mechanism\n";
        if ($vmtype eq 'qemu') {
            $provider->backup_vm($vmid, '', {}, {});
        } else {
            my $info = { directory => '/mnt/vzsnap0', sources => ['./'], 'firewall-config' => '' };
            $provider->backup_container_prepare($vmid, $info);
            $provider->backup_container($vmid, '', [], $info);
        }
        $provider->backup_cleanup($vmid, $vmtype, 1, {});
        1;
    };
    my $error = $@;
    eval { $provider->backup_cleanup($vmid, $vmtype, 0, { error => $error }) } if !$ok;
    $provider->backup_handle_log_file($vmid, '/nowhere/log');
    return $ok ? 'ok' : $error;
}

my $provider = provider();
$provider->job_init(1000);
is(back_up($provider, 100, 'qemu'), 'ok', 'a machine');
is(back_up($provider, 101, 'lxc'), 'ok', 'a container');
script(backup_vm => { error => 'the disk cannot be read' });
is(back_up($provider, 102, 'qemu'), "the disk cannot be read\n", 'a machine that fails');
script(backup_container => { end => 'kill' });
like(back_up($provider, 103, 'lxc'), qr/ended early/, 'a container at which the child ends');
script(backup_init => { error => 'busy' });
is(back_up($provider, 104, 'qemu'), "busy\n", 'a guest that cannot be begun');
script();
is(back_up($provider, 105, 'lxc'), 'ok', 'a container after all that');
is(back_up($provider, 106, 'qemu'), 'ok', 'and a machine');

# A guest that is unknown comes to its cleanup only, with no type.
$provider->backup_cleanup(999, undef, 0, { error => 'no such guest' });
$provider->job_cleanup();
my @cleanups = map { "$_->{args}->{vmid} $_->{args}->{success}" } grep { $_->{call} eq 'backup_cleanup' } calls();
is_deeply(\@cleanups, ['100 1', '101 1', '102 0', '104 0', '105 1', '106 1', '999 0'], 'each has its cleanup');
is_deeply([told_logs()], [], 'nothing was said beside the errors');

done_testing();
