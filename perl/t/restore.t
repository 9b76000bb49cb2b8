#!/usr/bin/perl -T

# Restores as qemu-server and pve-container make them, with and without the storage ID.

use strict;
use warnings;

use MIME::Base64 qw(encode_base64);
use Scalar::Util qw(tainted);
use Test::More;

use Bench;

my $volname = 'backup/' . ARCHIVE;
my $bytes = "name: \xff\n";
script(archive_get_guest_config => { result => encode_base64($bytes, ''), log => [['warn', 'slow']] },
    restore_vm_init => { result => { 'drive-scsi0' => { size => '1048576' } }, log => [['info', 'opened']] });

my $provider = provider();
is($provider->archive_get_guest_config($volname, STOREID), $bytes, 'a configuration comes byte for byte');
is($provider->restore_get_guest_config($volname, STOREID), $bytes, 'also by its older name');
is($provider->archive_get_firewall_config($volname), undef, 'no firewall file is none');
is_deeply([told_logs()], [], 'outside of tasks nothing is logged');
is_deeply([$provider->restore_get_mechanism($volname)], ['qemu-img', 'qemu'], 'the mechanism and the type');
my $volumes = $provider->restore_vm_init($volname);
is_deeply($volumes, { 'drive-scsi0' => { size => 1048576 } }, 'each device has a size');
is_deeply([told_logs()], ['info: opened'], 'a restore logs');
my $disk = $provider->restore_vm_volume_init($volname, 'drive-scsi0', {});
is($disk->{'qemu-img-path'}, '/run/snapkeep/drive-scsi0', 'a disk has a path');
ok(!tainted($_), 'what comes back is clean') for $volumes->{'drive-scsi0'}->{size}, $disk->{'qemu-img-path'},
    keys(%$volumes), $provider->archive_get_guest_config($volname);
$provider->restore_vm_volume_cleanup($volname, 'drive-scsi0', {});
$provider->restore_vm_cleanup($volname);

# Version 5: the storage ID between the name and the rest.
$provider->restore_vm_volume_init($volname, STOREID, 'drive-scsi0', {});
$provider->restore_vm_volume_cleanup($volname, STOREID, 'drive-scsi0', {});
my @devices = map { $_->{args}->{device} // () } calls();
is_deeply(\@devices, [('drive-scsi0') x 4], 'the device is the last scalar');
is_deeply([grep { m/storage ID/ } told_logs()], [], 'our storage ID is no news');
$provider->restore_vm_init($volname, 'other');
is((grep { m/^warn: ignoring the storage ID 'other'/ } told_logs()), 1, 'a foreign one is warned of');

my $container = provider();
is_deeply($container->restore_container_init($volname, STOREID, {}), { 'archive-directory' => '/run/snapkeep/ct' }, 'a folder');
$container->restore_container_cleanup($volname, STOREID, {});
script(restore_container_init => { result => { 'tar-path' => '/run/snapkeep/ct.tar' } });
is_deeply($container->restore_container_init($volname, STOREID, {}), { 'tar-path' => '/run/snapkeep/ct.tar' }, 'or a tar file');
calls();

# What is not as it should be.
script(restore_vm_init => { result => { 'drive-scsi0' => { size => '-1' } } },
    restore_vm_volume_init => { result => { 'qemu-img-path' => 'nbd://x' } },
    restore_vm_volume_cleanup => { error => 'cannot unmount' }, restore_vm_cleanup => { error => 'cannot unmount' });
ok(!eval { $provider->restore_vm_init($volname); 1 }, 'a wrong size is refused');
ok(!eval { $provider->restore_vm_volume_init($volname, 'drive-scsi0', {}); 1 }, 'a path that is none is refused');
ok(!eval { $provider->restore_vm_volume_cleanup($volname, 'drive-scsi0', {}); 1 }, 'a cleanup of a disk tells its failure');
is($@, "cannot unmount\n", 'in the words of the child');
ok(eval { $provider->restore_vm_cleanup($volname); 1 }, 'the last cleanup never dies');
is((grep { m/^warn: restore_vm_cleanup: cannot unmount/ } told_logs()), 1, 'but tells');
calls();
my $fresh = provider();
$fresh->restore_vm_cleanup($volname);
$fresh->restore_container_cleanup($volname, STOREID, {});
is(calls_of(calls()), '', 'a cleanup without anything starts no child');

done_testing();
