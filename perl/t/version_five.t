#!/usr/bin/perl -T

# The calls of version 5 of the series.

use strict;
use warnings;

use Test::More;

use Bench;

my $provider = provider();
$provider->job_hook('start', { 'start-time' => 1000 });
$provider->job_hook('something-new', {});
$provider->backup_hook('start', 100, 'qemu', { 'start-time' => 1001 });
is($provider->backup_get_archive_name(100, 'qemu', 1001), ARCHIVE, 'the name is that of the start');
is_deeply([$provider->backup_get_mechanism(100, 'qemu')], ['nbd', 'bitmap-1'], 'in list context the bitmap comes too');
$provider->backup_hook('prepare', 100, 'qemu', {});
$provider->backup_hook('something-new', 100, 'qemu', {});
$provider->backup_vm(100, '', {}, {});
is($provider->backup_get_task_size(100), 4711, 'the size is known before the end');
$provider->backup_hook('end', 100, 'qemu', {});
is($provider->backup_get_task_size(100), 4711, 'and after it');

# The name may be asked for first.
is($provider->backup_get_archive_name(101, 'qemu', 1002), ARCHIVE, 'the name comes before the start too');
$provider->backup_hook('start', 101, 'qemu', { 'start-time' => 1002 });
$provider->backup_hook('abort', 101, undef, { error => "it b\xc3\xbcrns" });
$provider->job_hook('abort', { error => 'no more' });

my @calls = calls();
is(calls_of(@calls), 'job_init backup_init backup_get_mechanism backup_vm backup_cleanup'
    . ' backup_init backup_cleanup job_cleanup', 'each call is made once');
my @errors = map { $_->{args}->{error} } grep { $_->{call} =~ m/_cleanup\z/ } @calls;
is_deeply(\@errors, [undef, "it b\x{fc}rns", 'no more'], 'errors are told');
script(backup_get_mechanism => { result => { mechanism => undef, bitmap => undef } });
is_deeply([$provider->backup_get_mechanism(1, 'odd')], [undef, undef], 'an unknown type has no mechanism');

done_testing();
