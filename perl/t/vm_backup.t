#!/usr/bin/perl -T

# A job of virtual machines, as it is called.

use strict;
use warnings;

use MIME::Base64 qw(decode_base64);
use Scalar::Util qw(tainted);
use Test::More;

use Bench;

my $provider = provider();
is($provider->provider_name(), 'Snapkeep', 'the name is told');
is(scalar(my @none = calls()), 0, 'neither an object nor its name starts a child');

my $config = "name: b\xc3\xbccher\n#qmdump#map:scsi0:drive-scsi0:s:raw:\n# \xff\xfe\n";
$provider->job_init(1000);
is_deeply($provider->backup_init(100, 'qemu', 1001), { 'archive-name' => ARCHIVE }, 'the archive has a name');
my $mechanism = $provider->backup_get_mechanism(100, 'qemu');
is($mechanism, 'nbd', 'in scalar context the mechanism comes alone');
my $modes = $provider->backup_vm_query_incremental(100, { 'drive-scsi0' => { size => 1048576 } });
is_deeply($modes, { 'drive-scsi0' => 'new' }, 'each device has a mode');
my $volumes = { 'drive-scsi0' => {
    size => 1048576, 'bitmap-mode' => 'new', 'nbd-path' => '/run/x//nbd', 'bitmap-name' => 'snapshot-access:store',
} };
$provider->backup_vm(100, $config, $volumes, { 'bandwidth-limit' => 1024, 'firewall-config' => "[OPTIONS]\n" });
my $stats = $provider->backup_cleanup(100, 'qemu', 1, {});
is_deeply($stats, { stats => { 'archive-size' => 4711 } }, 'the size is told');
ok(!tainted($stats->{stats}->{'archive-size'}), 'and is clean');
open(my $log, '>', folder() . '/log');
close($log);
$provider->backup_handle_log_file(100, folder() . '/log');
$provider->job_cleanup();
$provider->job_cleanup();

my @calls = calls();
is(calls_of(@calls), 'job_init backup_init backup_get_mechanism backup_vm_query_incremental backup_vm'
    . ' backup_cleanup backup_handle_log_file job_cleanup job_cleanup', 'one call for each, in order');
is_deeply($calls[0]->{env}, [qw(LC_ALL PATH)], 'the environment is clean');
is($calls[0]->{args}->{settings}->{namespace}, 'pve', 'the settings are told');
my ($backup) = grep { $_->{call} eq 'backup_vm' } @calls;
is(decode_base64($backup->{args}->{guest_config}), $config, 'a configuration that is not UTF-8 survives');
is($backup->{args}->{volumes}->{'drive-scsi0'}->{bitmap_name}, 'snapshot-access:store', 'the bitmap is named');
is($backup->{args}->{bandwidth_limit}, 1024, 'the limit is told');
is_deeply([told_logs()], [], 'nothing was logged');

done_testing();
