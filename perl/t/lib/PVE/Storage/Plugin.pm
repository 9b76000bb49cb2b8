package PVE::Storage::Plugin;

# The base class of storage plugins, as far as it is used.

use strict;
use warnings;

sub parse_volume_id {
    my ($volid) = @_;
    my ($storeid, $volname) = $volid =~ m/\A([^:]+):(.+)\z/ or die "no volume ID: $volid\n";
    return ($storeid, $volname);
}

1;
