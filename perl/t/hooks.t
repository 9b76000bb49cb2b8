#!/usr/bin/perl -T

# Adding, changing and removing a storage: where secrets are, and what happens if something fails.

use strict;
use warnings;

use Test::More;

use Bench;

my $plugin = 'PVE::Storage::Custom::SnapkeepPlugin';
my $passphrase = folder() . '/secrets/' . STOREID . '.snapkeep-passphrase';
my $key = folder() . '/secrets/' . STOREID . '.snapkeep-key';

sub content { my ($path) = @_; open(my $file, '<', $path) or return undef; local $/ = undef; return scalar(<$file>); }

# The call that opened or made the repository.
sub opened { my ($call) = grep { $_->{call} =~ m/\Astorage_/ } @_; return $call ? $call->{call} : undef; }

# What a hook writes to standard output.
sub printed {
    my ($code) = @_;
    my $text = '';
    open(my $to, '>', \$text) or die $!;
    my $before = select($to);
    my $ok = eval { $code->(); 1 };
    select($before);
    die $@ if !$ok;
    return $text;
}

my $scfg = scfg('snapkeep-create' => 1);
my $secret = "hunter\x{fc}";
utf8::upgrade($secret);
like(printed(sub { $plugin->on_add_hook(STOREID, $scfg, password => $secret) }),
    qr/recovery kit .*store\.snapkeep-recovery-kit/, 'where the recovery kit is, is told');
like($scfg->{'snapkeep-identity'}, qr/\A[0-9a-f]{16}\z/, 'a storage has an identity');
ok(!exists($scfg->{'snapkeep-create'}), 'that it was made is not kept');
is_deeply([grep { m/passphrase|key/ } keys %$scfg], [], 'no secret is in the section');
is(content($passphrase), "hunter\xc3\xbc\n", 'the passphrase is in its file');
is((stat($passphrase))[2] & 07777, 0600, 'which root alone can read');
my @calls = calls();
is(opened(@calls), 'storage_create', 'the repository was made');
is($calls[0]->{args}->{settings}->{passphrase_file}, $passphrase, 'its passphrase is named, not told');
ok(!exists($calls[0]->{args}->{settings}->{key_file}), 'a key that is not there is not');
unlike(join(' ', map { explain($_) } @calls), qr/hunter/, 'nobody was told');
my $identity = $scfg->{'snapkeep-identity'};
isnt(do { my $other = scfg(); $plugin->on_add_hook('other', $other); $other->{'snapkeep-identity'} }, $identity, 'each has its own');
is(opened(calls()), 'storage_check', 'one that is there is opened');

# Changes.
script(storage_check => { error => 'wrong passphrase' });
ok(!eval { $plugin->on_update_hook_full(STOREID, $scfg, {}, undef, { password => 'new' }); 1 }, 'a wrong one');
like($@, qr/wrong passphrase\n\z/, 'is refused');
is(content($passphrase), "hunter\xc3\xbc\n", 'and the old one is still there');
script();
$plugin->on_update_hook_full(STOREID, $scfg, { content => 'backup' }, undef, {});
is(content($passphrase), "hunter\xc3\xbc\n", 'other changes leave it');
ok(!eval { $plugin->on_update_hook_full(STOREID, $scfg, {}, undef, { 'snapkeep-key' => 'k' }); 1 }, 'a key beside it is refused');
is(content($key), undef, 'and not kept');
$plugin->on_update_hook_full(STOREID, $scfg, {}, ['password'], { password => undef, 'snapkeep-key' => "k\n" });
is(content($passphrase), undef, 'one may take the place');
is(content($key), "k\n", 'of the other');
$plugin->on_update_hook(STOREID, {}, 'snapkeep-key' => 'k2');
is(content($key), "k2\n", 'also as older versions call it');
$PVE::Storage::config->{ids}->{+STOREID} = $scfg;
script(storage_check => { error => 'wrong key' });
ok(!eval { $plugin->on_update_hook(STOREID, {}, 'snapkeep-key' => 'k3'); 1 }, 'a wrong one is refused there too');
is(content($key), "k2\n", 'and not kept');
script();

# Failures to add.
script(storage_create => { error => 'the folder is not empty' });
ok(!eval { $plugin->on_add_hook('third', scfg('snapkeep-create' => 1), 'snapkeep-key' => 'k'); 1 }, 'what cannot be made');
ok(!-e folder() . '/secrets/third.snapkeep-key', 'leaves no secret');
ok(!eval { $plugin->on_add_hook('third', scfg('snapkeep-create' => 1)); 1 }, 'a new one needs a secret');
ok(!eval { $plugin->on_add_hook('third', scfg(), password => "two\nlines"); 1 }, 'a password of two lines is refused');
like($@, qr/\Athe password must be one line\n\z/, 'and said why');

# Removal.
open(my $kit, '>', folder() . '/secrets/' . STOREID . '.snapkeep-recovery-kit');
close($kit);
mkdir(folder() . '/memory') or die;
my ($own, $other) = map { folder() . "/memory/pve+vm+100+" . STOREID . ".$_" } $scfg->{'snapkeep-identity'}, 'f' x 16;
for my $path ($own, $other) { open(my $file, '>', $path) or die; close($file) }
$plugin->on_delete_hook(STOREID, $scfg);
$plugin->on_delete_hook(STOREID, $scfg);
ok(!-e $key, 'secrets are removed');
ok(!-e $own, 'and what is remembered of its backups');
ok(-e $other, 'not what another storage of this ID remembers');
ok(-e folder() . '/secrets/' . STOREID . '.snapkeep-recovery-kit', 'the recovery kit is not');
ok(!eval { $plugin->on_delete_hook('../x', $scfg); 1 }, 'a strange storage ID is refused');

done_testing();
