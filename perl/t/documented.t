#!/usr/bin/perl -T

# The tests that docs/TESTING.md names for faults of Proxmox VE's side are there.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Find qw(find);
use Test::More;

use Bench;

my $root = untainted(abs_path(dirname(__FILE__) . '/../..'));

sub text { my ($path) = @_; open(my $file, '<', $path) or return ''; local $/ = undef; return scalar(<$file>) =~ tr/\\//dr; }

my ($section) = text("$root/docs/TESTING.md") =~ m/^## Faults of Proxmox VE's side\n(.*?)^## /ms;
my %functions;
find({ no_chdir => 1, untaint => 1, untaint_pattern => qr/\A(.*)\z/s, wanted => sub {
    $functions{$_} = 1 for $_ =~ m/\.rs\z/ ? text(untainted($_)) =~ m/^ *fn ([a-z0-9_]+)\(\)/mg : ();
} }, "$root/crates");
my $count = 0;
for my $row (grep { m/\A\| / && !m/\A\| case / } split(/\n/, $section // '')) {
    my @cells = split(/ \| /, $row);
    my $file = '';
    while ($cells[2] =~ m/`([^`]+)`|"([^"]+)"/g) {
        my ($code, $name) = ($1, $2);
        if (defined($name)) {
            ok(index($file, $name) >= 0, "\"$name\"");
        } elsif ($code =~ m/\.t\z/) {
            $file = text("$root/perl/t/$code") . ($code =~ m/\Areal_/ ? text("$root/perl/t/lib/Flows.pm") : '');
            ok(length($file), $code);
        } elsif ($code =~ m/\A[a-z0-9_]{20,}\z/) {
            ok($functions{$code}, $code);
        }
        $count++;
    }
}
cmp_ok($count, '>', 50, 'tests are named');

done_testing();
