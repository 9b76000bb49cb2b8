#!/usr/bin/perl -T

# Every method and every parameter of the provider class, as shipped and in version 5: what the child is told of
# it. docs/PROVIDER_API.md names these tests.

use strict;
use warnings;

use MIME::Base64 qw(decode_base64);
use Test::More;

use Bench;

my $class = 'PVE::BackupProvider::Plugin::Snapkeep';
my $volname = 'backup/' . ARCHIVE;

# The arguments of the only call of this name that was made.
sub told {
    my ($name) = @_;
    my @calls = grep { $_->{call} eq $name } calls();
    return @calls == 1 ? $calls[0]->{args} : { calls => scalar(@calls) };
}

# --- Construction.

{
    my $scfg = scfg('snapkeep-workers' => 3, content => { backup => 1 });
    my %before = (%$scfg, content => { $scfg->{content}->%* });
    my @logged;
    my $log = sub { push @logged, [@_]; };
    my $made = PVE::Storage::Custom::SnapkeepPlugin->new_backup_provider($scfg, STOREID, $log);
    isa_ok($made, $class, 'what the storage plugin makes');
    my $second = $class->new('PVE::Storage::Custom::Another', $scfg, STOREID, $log);
    is(calls_of(calls()), '', 'a new object has started nothing');
    ok(!$made->{bridge}->is_started() && !$second->{bridge}->is_started(), 'and neither has another one');
    $second->job_init(1);
    my ($hello) = calls();
    is($hello->{args}->{storage}, STOREID, 'the storage ID is told');
    is($hello->{args}->{settings}->{workers}, '3', 'the section of the storage is told');
    is_deeply([sort grep { $_ ne 'settings' } keys $hello->{args}->%*], [qw(pid storage version)],
        'the class of the storage plugin is not told');
    $made->job_init(1);
    is((grep { $_->{call} eq 'hello' } calls()), 1, 'each object has a child of its own');
    is_deeply($scfg, \%before, 'the section of the storage is not changed');
    script(backup_init => { log => [['info', 'a'], ['warn', 'b'], ['err', 'c'], ['other', 'd'], ['info', '']] });
    $made->backup_init(100, 'qemu', 1);
    is_deeply(\@logged, [['info', 'a'], ['warn', 'b'], ['err', 'c'], ['err', 'd']],
        'the log function gets a level that it knows and a message that is not empty');
    script();
    is(join(' ', map { $_->provider_name() } $made, $second), 'Snapkeep Snapkeep', 'the name is the same as often as it is asked');
    calls();
}

# --- The job.

my $provider = provider();
$provider->job_init(1000);
is(told('job_init')->{start_time}, 1000, 'the start of a job is told with its time');
$provider->job_cleanup();
is_deeply(told('job_cleanup'), { error => undef }, 'the end of a job is told');
$provider->job_cleanup();
is_deeply(told('job_cleanup'), { error => undef }, 'also if it comes twice');
$provider->job_hook('start', { 'start-time' => 1002 });
is(told('job_init')->{start_time}, 1002, 'the phase start has its time in a hash');
$provider->job_hook('end', {});
is_deeply(told('job_cleanup'), { error => undef }, 'the phase end is the end of a job');
$provider->job_hook('abort', { error => 'why' });
is_deeply(told('job_cleanup'), { error => 'why' }, 'the phase abort tells its error');
is(scalar($provider->job_hook('later', {})), undef, 'an unknown phase of a job returns nothing');
is(calls_of(calls()), '', 'an unknown phase of a job is not told');

# --- A guest.

is_deeply($provider->backup_init('100', 'qemu', 1001), { 'archive-name' => ARCHIVE }, 'a guest has an archive with a name');
is_deeply(told('backup_init'), { vmid => 100, vmtype => 'qemu', start_time => 1001 }, 'a guest has a number, a type and a time');
$provider->backup_cleanup(100, 'qemu', 0, { error => 'it failed' });
is_deeply(told('backup_cleanup'), { vmid => 100, vmtype => 'qemu', success => 0, error => 'it failed' },
    'a failed cleanup tells the error');
$provider->backup_cleanup(999, undef, 0, { error => 'unknown' });
is(told('backup_cleanup')->{vmtype}, undef, 'the type of an unknown guest is none');
is_deeply($provider->backup_cleanup(100, 'qemu', 1, {}), { stats => { 'archive-size' => 4711 } }, 'a good cleanup returns the size');
is_deeply(told('backup_cleanup'), { vmid => 100, vmtype => 'qemu', success => 1 }, 'a good cleanup tells no error');

$provider->backup_hook('start', 100, 'qemu', { 'start-time' => 1003 });
is_deeply(told('backup_init'), { vmid => 100, vmtype => 'qemu', start_time => 1003 }, 'the phase start begins a guest');
is($provider->backup_get_archive_name(100, 'qemu', 1003), ARCHIVE, 'the name of the archive is asked for');
$provider->backup_hook('end', 100, 'qemu', {});
is(told('backup_cleanup')->{success}, 1, 'the phase end ends a guest well');
is($provider->backup_get_task_size(100), 4711, 'the size of the archive is asked for');
$provider->backup_hook('abort', 100, undef, { error => 'why' });
is_deeply([@{ told('backup_cleanup') }{qw(success error)}], [0, 'why'], 'the phase abort ends a guest with its error');
is(scalar($provider->backup_hook('later', 100, 'qemu', {})), undef, 'an unknown phase of a guest returns nothing');
is(calls_of(calls()), '', 'an unknown phase of a guest is not told');

$provider->backup_get_mechanism(100, 'qemu');
is_deeply(told('backup_get_mechanism'), { vmid => 100, vmtype => 'qemu' }, 'the mechanism is asked for with the type');
open(my $log, '>', folder() . '/task.log');
close($log);
$provider->backup_handle_log_file(100, folder() . '/task.log');
is_deeply(told('backup_handle_log_file'), { vmid => 100, path => folder() . '/task.log' }, 'the log file is told by its path');

# --- The data of a virtual machine.

script(backup_vm_query_incremental => { result => { a => 'use', b => 'new' } });
is_deeply($provider->backup_vm_query_incremental(100, { a => { size => 1 }, b => { size => 2 }, c => { size => 3 } }),
    { a => 'use', b => 'new' }, 'a device has a mode or is left out');
is_deeply(told('backup_vm_query_incremental'), { vmid => 100, volumes => { a => { size => 1 }, b => { size => 2 }, c => { size => 3 } } },
    'the size of each device is told');
script();

my $volumes = {
    'drive-scsi0' => { size => 512, 'bitmap-mode' => 'reuse', 'nbd-path' => '/run/a//nbd', 'bitmap-name' => 'snapshot-access:store' },
    'drive-tpmstate0-backup' => { size => 4096, 'bitmap-mode' => 'none', 'nbd-path' => '/run/a//nbd', 'bitmap-name' => undef },
};
my %info = ('bandwidth-limit' => 2048, 'firewall-config' => "[RULES]\n\xff");
is(scalar($provider->backup_vm(100, "a: \xff\n", $volumes, { %info })), undef, 'the backup of a machine returns nothing');
my $backup = told('backup_vm');
is(decode_base64($backup->{guest_config}), "a: \xff\n", 'the configuration of a machine is told byte for byte');
is(decode_base64($backup->{firewall_config}), "[RULES]\n\xff", 'the firewall file of a machine is told byte for byte');
is($backup->{bandwidth_limit}, 2048, 'the limit of a machine is told');
is_deeply([sort keys $backup->{volumes}->%*], [sort keys %$volumes], 'each device is told by its name');
is_deeply($backup->{volumes}->{'drive-scsi0'}, { size => 512, bitmap_mode => 'reuse', nbd_path => '/run/a//nbd',
    bitmap_name => 'snapshot-access:store' }, 'size, mode, socket and bitmap of a device are told');
is($backup->{volumes}->{'drive-tpmstate0-backup'}->{bitmap_name}, undef, 'a device without a bitmap has no name of one');
$provider->backup_vm(100, '', {}, {});
is_deeply(told('backup_vm'), { vmid => 100, guest_config => '', firewall_config => undef, bandwidth_limit => undef, volumes => {} },
    'what a machine does not have is none');

# --- The data of a container.

script(backup_get_mechanism => { result => { mechanism => 'directory', bitmap => undef } });
is($provider->backup_get_mechanism(101, 'lxc'), 'directory', 'a container is handed over as a folder');
calls();
my $container = { directory => '/mnt/vzsnap0', sources => ['./', './mnt/a'], 'backup-user-id' => 100000, %info };
$provider->backup_container_prepare(101, $container);
my $prepared = told('backup_container_prepare');
is($prepared->{directory}, '/mnt/vzsnap0', 'the folder of a container is told');
is_deeply($prepared->{sources}, ['./', './mnt/a'], 'the mount points of a container are told');
is($prepared->{backup_user_id}, 100000, 'the user of a container is told');
is(decode_base64($prepared->{firewall_config}), "[RULES]\n\xff", 'the firewall file of a container is told byte for byte');
is($prepared->{bandwidth_limit}, 2048, 'the limit of a container is told');
like($prepared->{walker_fd}, qr/\A[0-9]+\z/, 'the child is handed a socket');
my $excludes = ['/tmp/?*', 'cache/'];
is(scalar($provider->backup_container(101, "a: \xff\n", $excludes, $container)), undef, 'the backup of a container returns nothing');
my $walked = told('backup_container');
is(decode_base64($walked->{guest_config}), "a: \xff\n", 'the configuration of a container is told byte for byte');
is_deeply($walked->{exclude}, ['/tmp/?*', 'cache/'], 'the patterns are told in their order');
is_deeply($excludes, ['/tmp/?*', 'cache/'], 'the list of patterns is not changed');
is($walked->{vmid}, 101, 'the container is told by its number');

# --- Archives and restores: as shipped, and with the storage ID of version 5.

$provider = provider();
my $device = 'drive-scsi0';
for my $case (
    ['archive_get_guest_config', 'a guest configuration is asked for by its archive'],
    ['archive_get_firewall_config', 'a firewall configuration is asked for by its archive'],
    ['restore_get_mechanism', 'the mechanism of a restore is asked for by its archive'],
    ['restore_vm_init', 'the restore of a machine begins with its archive'],
    ['restore_vm_volume_init', 'a disk is opened by archive and device', $device, {}],
    ['restore_vm_volume_cleanup', 'a disk is closed by archive and device', $device, {}],
    ['restore_vm_cleanup', 'the restore of a machine ends with its archive'],
    ['restore_container_init', 'the restore of a container begins with its archive', {}],
    ['restore_container_cleanup', 'the restore of a container ends with its archive', {}],
) {
    my ($method, $name, @more) = @$case;
    my $expected = { volname => $volname, @more > 1 ? (device => $device) : () };
    for my $storeid ([], [STOREID]) {
        $provider->$method($volname, @$storeid, @more);
        is_deeply(told($method), $expected, $name);
    }
}
$provider->restore_get_guest_config($volname, STOREID);
is_deeply(told('archive_get_guest_config'), { volname => $volname }, 'the guest configuration by its older name');
$provider->restore_get_firewall_config($volname, STOREID);
is_deeply(told('archive_get_firewall_config'), { volname => $volname }, 'the firewall configuration by its older name');
is_deeply([told_logs()], [], 'nothing was logged');

$provider->restore_vm_volume_init($volname, 'drive-scsi0', { format => 'qcow2' });
is_deeply(told('restore_vm_volume_init'), { volname => $volname, device => 'drive-scsi0' }, 'the info of a disk is passed over');
$provider->restore_container_init($volname, { format => 'tar' });
is_deeply(told('restore_container_init'), { volname => $volname }, 'the info of a container is passed over');

done_testing();
