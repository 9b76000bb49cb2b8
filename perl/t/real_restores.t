#!/usr/bin/perl -T

# Whole jobs and restores in the order of their callers, with the real program: a machine over NBD and by file handle, a
# container in a user namespace and in the task. What is restored is what was backed up, byte for byte.

use strict;
use warnings;

use POSIX ();
use Test::More;

use Bench;
use Flows qw(flows run_step);
use Killing qw(gather in_user_namespace left_behind);
use Real qw(archives content needs real_context server);

needs('real_restores', '/usr/bin/qemu-nbd', '/usr/bin/find');
alarm(600);

my %flows = map { my ($name, @steps) = @$_; ($name => [grep { !$_->{alone} } @steps]) } flows();

# Makes the calls of a flow, and looks at things after some of them; returns the context.
sub flow {
    my ($name, $context, %after) = @_;
    for my $step ($flows{$name}->@*) {
        run_step($step, $context);
        my $sub = $after{ $step->{sub} };
        $sub->() if $sub;
    }
    return $context;
}

# Each entry below a folder with all that `stat` says, and how much its owner is shifted.
sub tree {
    my ($folder, $shift) = @_;
    open(my $find, '-|', '/usr/bin/find', $folder, '-mindepth', '1', '-printf', '%P\t%y\t%m\t%U\t%G\t%s\t%T@\t%l\t%n\0') or die $!;
    local $/ = "\0";
    my %tree;
    while (my $line = <$find>) {
        my ($path, $type, $mode, $user, $group, $size, $time, $to, $links) = split(/\t/, $line);
        $size = 0 if $type ne 'f';
        # A mount says of other types that there may be more, so that `tar` looks.
        $links = 0 if $type ne 'f';
        my $bytes = $type eq 'f' ? content(untainted("$folder/$path")) : '';
        $tree{$path} = join(' ', $type, $mode, $user - $shift, $group - $shift, $size, $time, $to, $links, $bytes);
    }
    return \%tree;
}

my $disk = content(folder() . '/disk');
my $source = tree(folder() . '/tree', 100000);
delete $source->{'tmp/excluded'};
my @before;
for my $name ('machine by nbd', 'machine by file-handle', 'machine by version 5') {
    my @log;
    my $context = flow($name, real_context(log => sub { push @log, "@_" }));
    my ($new) = grep { my $one = $_; !grep { $_ eq $one } @before } archives();
    @before = archives();
    is($new, "backup/$context->{name}", "$name: the archive is listed") or diag("@log");
    next if $name =~ m/version/;
    is($context->{stats}->{stats}->{'archive-size'}, length($disk), "$name: its size is that of the disk");
    for my $restore ('restore of a machine', 'restore of a machine by version 5') {
        my $of = real_context();
        $of->{vm_volname} = $new;
        my $bytes;
        my $look = sub { $bytes = content($of->{told}->{restore_vm_volume_init}->[0]->{'qemu-img-path'}) };
        flow($restore, $of, restore_vm_volume_init => $look);
        ok($bytes eq $disk, "$name, $restore: the disk is what it was");
        my ($config) = grep { defined($_) } map { $_->[0] } $of->{told}->@{qw(archive_get_guest_config restore_get_guest_config)};
        is($config, $context->{config}, "$name, $restore: the configuration is what it was");
        is_deeply($of->{told}->{restore_get_mechanism}, ['qemu-img', 'qemu'], "$name, $restore: the mechanism");
        undef $of;
        is_deeply([left_behind()], [], "$name, $restore: no mount is left");
    }
}
for my $name ('container in its user namespace', 'container in the task', 'container by version 5') {
    my $context = real_context(in_container => \&in_user_namespace);
    flow($name, $context);
    my ($new) = grep { my $one = $_; !grep { $_ eq $one } @before } archives();
    @before = archives();
    like($new, qr!\Abackup/vzdump-lxc-101-!, "$name: the archive is listed");
    my $shift = $name =~ m/namespace/ ? 0 : 100000;
    for my $restore ('restore of a container', "restore of a container without the storage's ID") {
        my $of = real_context();
        $of->{ct_volname} = $new;
        my $tree;
        my $look = sub { $tree = tree($of->{told}->{restore_container_init}->[0]->{'archive-directory'}, $shift) };
        flow($restore, $of, restore_container_init => $look);
        is_deeply($tree, $source, "$name, $restore: the tree is what it was");
        next if !$of->{told}->{archive_get_firewall_config};
        is($of->{told}->{archive_get_firewall_config}->[0], "[OPTIONS]\n", "$name, $restore: and the firewall's file");
    }
    is_deeply([left_behind()], [], "$name: no mount is left");
}
is_deeply([gather(server())], [], 'no process is left');

done_testing();
