#!/usr/bin/perl -T

# Disks that are handed over as file handles: their dirty regions are sent before.

use strict;
use warnings;

use IO::File;
use Test::More;

use Bench;

my $count = 20_001;
my $next_region = sub {
    die "not in list context\n" if !wantarray;
    return () if $count == 0;
    $count--;
    return ("$count", '4194304');
};
my $file = IO::File->new('/dev/null', 'r');
my $volumes = {
    'drive-scsi0' => { size => 1 << 40, 'bitmap-mode' => 'reuse', 'file-handle' => $file, 'next-dirty-region' => $next_region },
    'drive-scsi1' => { size => 512, 'bitmap-mode' => 'none', 'file-handle' => $file, 'next-dirty-region' => sub { return () } },
};
my $provider = provider();
$provider->backup_vm(100, '', $volumes, {});
my @calls = calls();
is(calls_of(@calls), join(' ', ('backup_vm_regions') x 4, 'backup_vm'), 'regions come first, in pieces');
my @pieces = map { [scalar($_->{args}->{regions}->@*), $_->{args}->{last}, $_->{args}->{device}] }
    grep { $_->{call} eq 'backup_vm_regions' } @calls;
is_deeply(\@pieces, [[10_000, 0, 'drive-scsi0'], [10_000, 0, 'drive-scsi0'], [1, 1, 'drive-scsi0'], [0, 1, 'drive-scsi1']],
    'of a bounded size, each disk with its end');
my ($backup) = grep { $_->{call} eq 'backup_vm' } @calls;
is($backup->{args}->{volumes}->{'drive-scsi0'}->{fd}, fileno($file), 'the descriptor is told');
is($backup->{args}->{volumes}->{'drive-scsi0'}->{bitmap_mode}, 'reuse', 'and the mode');

$volumes->{'drive-scsi0'}->{'next-dirty-region'} = sub { die "nbdinfo failed\n" };
ok(!eval { $provider->backup_vm(100, '', $volumes, {}); 1 }, 'a list that fails');
is($@, "device drive-scsi0: its list of dirty regions failed: nbdinfo failed\n", 'fails the backup by its name');
is((grep { $_->{call} eq 'backup_vm' } calls()), 0, 'which was not begun');

$volumes->{'drive-scsi0'}->{'next-dirty-region'} = sub { die "interrupted by signal\n" };
ok(!eval { $provider->backup_vm(100, '', $volumes, {}); 1 }, 'an interruption');
is($@, "interrupted by signal\n", 'is told in the words that end a job');

done_testing();
