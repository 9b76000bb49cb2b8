#!/usr/bin/perl -T

# The storage type, as the storage layer calls it.

use strict;
use warnings;

use MIME::Base64 qw(encode_base64);
use Scalar::Util qw(tainted);
use Test::More;

use Bench;

my $plugin = 'PVE::Storage::Custom::SnapkeepPlugin';
my $volname = 'backup/' . ARCHIVE;

sub archive {
    my ($vmid, $second, %more) = @_;
    my $name = sprintf('vzdump-qemu-%d-2026-01-02T03_04_%02dZ-0123456789abcdef', $vmid, $second);
    return { archive => $name, vmid => $vmid, vmtype => 'qemu', ctime => 1000 + $second, size => 5, notes => undef,
        protected => 0, encrypted => 1, verification => undef, %more };
}

# What the storage layer needs to load it.
is($plugin->api(), 15, 'it speaks the version of the host');
is($plugin->type(), 'snapkeep', 'its type');
my ($properties, $options) = ($plugin->properties(), $plugin->options());
is_deeply([grep { $_ !~ m/\Asnapkeep-/ } keys %$properties], [], 'no property of ours can clash');
is_deeply([grep { !$options->{$_} } keys %$properties], [], 'each property is an option');
my @shared = qw(content disable max-protected-backups nodes password prune-backups shared);
is_deeply([grep { !$properties->{$_} } sort keys %$options], \@shared, 'an option that is no property of ours is a known one');
my $sensitive = $plugin->plugindata()->{'sensitive-properties'};
is_deeply([sort keys %$sensitive], ['password', 'snapkeep-key'], 'what is secret is said to be');
ok($options->{$_}->{optional}, "$_ is optional") for keys %$sensitive;

# Names.
is_deeply([$plugin->parse_volname($volname)], ['backup', ARCHIVE, 100, undef, undef, undef, 'snapkeep'], 'a name is read');
for my $name ("$volname\n", "backup/x/$volname", 'backup/../x', ARCHIVE, 'backup/vzdump-qemu-100-2026-01-02T03_04_05Z.vma',
    "backup/vzdump-qemu-0-2026-01-02T03_04_05Z-0123456789abcdef", 'images/' . ARCHIVE, 'backup/' . ARCHIVE . '0', '')
{
    ok(!eval { $plugin->parse_volname($name); 1 }, 'another is refused');
}
ok(defined($plugin->path(scfg(), $volname, STOREID)), 'a path is told');

# State.
my $cache = {};
$plugin->activate_storage(STOREID, scfg(), $cache);
is_deeply([$plugin->status(STOREID, scfg(), $cache)], [100, 60, 40, 1], 'the status');
is((grep { $_->{call} eq 'hello' } calls()), 1, 'activating and asking are served by one child');
is_deeply([$plugin->status(STOREID, scfg(), {})], [100, 60, 40, 1], 'the status without');
script(storage_status => { result => { active => 0, total => 1, available => 1, used => 0 } });
is_deeply([$plugin->status(STOREID, scfg(), undef)], [0, 0, 0, 0], 'what does not answer is not active');
ok(!eval { $plugin->activate_storage(STOREID, scfg(), {}); 1 }, 'and cannot be activated');
is($plugin->get_identity(scfg(), STOREID), 'snapkeep://f00d/pve', 'an identity');
script(storage_status => { hang => 1 });
ok(!eval { $plugin->status(STOREID, scfg(), undef); 1 }, 'a child that hangs is given up');
like($@, qr/did not answer storage_status in time/, 'and named');

# Lists.
my $notes = "b\xc3\xbccher\nmore";
my $list = [archive(100, 1, notes => encode_base64($notes, ''), verification => { state => 'ok', time => 1234 }),
    archive(100, 2, protected => 1), archive(100, 3), archive(101, 4), archive(100, 5)];
script(storage_list => { result => $list }, storage_get => { result => $list->[0] });
my $volumes = $plugin->list_volumes(STOREID, scfg(), undef, ['backup', 'iso']);
is(scalar(@$volumes), 5, 'all are listed');
is_deeply($volumes->[0], { volid => 'store:backup/vzdump-qemu-100-2026-01-02T03_04_01Z-0123456789abcdef', format => 'snapkeep',
    content => 'backup', size => 5, vmid => 100, ctime => 1001, subtype => 'qemu', encrypted => '1', notes => "b\x{fc}cher",
    verification => { state => 'ok', upid => 'UPID:snapkeep:00000000:00000000:000004D2:verify::root@pam:' } }, 'with all there is');
ok(!tainted($_), 'clean') for $volumes->[0]->@{qw(volid size ctime)};
is($volumes->[1]->{protected}, 1, 'a protected one is marked');
is_deeply($plugin->list_volumes(STOREID, scfg(), undef, ['images']), [], 'only backups are listed');
is_deeply([$plugin->volume_size_info(scfg(), STOREID, $volname)], [5, 'snapkeep', 5, undef], 'a size');
is($plugin->get_volume_attribute(scfg(), STOREID, $volname, 'notes'), "b\x{fc}cher\nmore", 'all notes');
is($plugin->get_volume_attribute(scfg(), STOREID, $volname, 'protected'), 0, 'not protected');
is($plugin->get_volume_attribute(scfg(), STOREID, $volname, 'other'), undef, 'nothing else');
calls();
$plugin->update_volume_attribute(scfg(), STOREID, $volname, 'notes', "b\x{fc}cher\nmore");
$plugin->update_volume_attribute(scfg(), STOREID, $volname, 'protected', 1);
my @calls = grep { $_->{call} =~ m/_set_/ } calls();
is($calls[0]->{args}->{notes}, encode_base64($notes, ''), 'notes are set as UTF-8');
is($calls[1]->{args}->{protected}, 1, 'protection is set');
ok(!eval { $plugin->update_volume_attribute(scfg(), STOREID, $volname, 'other', 1); 1 }, 'nothing else is');

# Removing.
is($plugin->free_image(STOREID, scfg(), $volname, 0), undef, 'removing is not left to a task, of which nobody knows how it ends');
is(calls_of(calls()), 'storage_free', 'but done');
script(storage_free => { error => 'it is protected' });
ok(!eval { $plugin->free_image(STOREID, scfg(), $volname, 0); 1 }, 'a protected one is refused');
calls();

# Pruning.
my $keep = { 'keep-last' => 1 };
script(storage_list => { result => $list });
calls();
my $marks = sub { return { map { $_->{ctime} => $_->{mark} } $_[0]->@* } };
my $expected = { 1001 => 'remove', 1002 => 'protected', 1003 => 'remove', 1004 => 'keep', 1005 => 'keep' };
is_deeply($marks->($plugin->prune_backups(scfg(), STOREID, $keep, undef, undef, 1)), $expected, 'each guest by itself');
is(calls_of(calls()), 'storage_list', 'a dry run removes nothing');
is_deeply($keep, { 'keep-last' => 1 }, 'what to keep is not changed');
my @told;
my $log = sub { push @told, $_[0] };
is_deeply($marks->($plugin->prune_backups(scfg(), STOREID, $keep, 100, 'qemu', 0, $log)),
    { $expected->%{1001, 1002, 1003, 1005} }, 'one guest alone');
is(calls_of(calls()), 'storage_list storage_free storage_free', 'what is marked is removed');
script(storage_list => { result => $list }, storage_free => { error => 'busy' });
@told = ();
ok(!eval { $plugin->prune_backups(scfg(), STOREID, $keep, undef, undef, 0, $log); 1 }, 'a failure is told at the end');
like($@, qr/\Acould not remove store:\S+, store:\S+\n\z/, 'with all that is left');
is_deeply(\@told, [qw(info err info err)], 'and the others were tried');

# Whoever sees a wrong retention stops the task.
script(storage_list => { result => $list }, storage_free => { hang => 1 });
calls();
{
    local $SIG{ALRM} = sub { die "received interrupt\n" };
    alarm(1);
    ok(!eval { $plugin->prune_backups(scfg(), STOREID, $keep, undef, undef, 0, $log); 1 }, 'pruning that is interrupted');
    alarm(0);
}
is($@, "received interrupt\n", 'dies of that');
is(calls_of(calls()), 'storage_list storage_free cancelled', 'and removes nothing more');

# Who may add storages must not choose what root runs.
my $programs = $plugin->properties()->{'snapkeep-program'}->{pattern};
like($_, qr/^$programs$/, "$_ may be the program") for qw(/usr/bin/snapkeep /opt/snapkeep-1.2/bin/snapkeep);
unlike($_, qr/^$programs$/, "$_ may not") for qw(/rpool/data/x /usr/../tmp/x /usr/bin/.x /usr usr/bin/x /tmp/usr/x);

# What there is not.
is_deeply($plugin->list_images(STOREID, scfg()), [], 'no images');
ok(!eval { $plugin->alloc_image(); 1 }, 'none can be made');
is($plugin->volume_has_feature(scfg(), 'snapshot', STOREID, $volname), undef, 'no features');

done_testing();
