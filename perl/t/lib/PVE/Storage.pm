package PVE::Storage;

# What the plugin uses of it: a version, the configuration, and the choice of what is pruned, here by `keep-last` alone.

use strict;
use warnings;

use constant APIVER => 15;

our $config = { ids => {} };

sub config { return $config; }

sub storage_config { my ($cfg, $storeid) = @_; return $cfg->{ids}->{$storeid}; }

sub prune_mark_backup_group {
    my ($group, $keep) = @_;
    my $left = $keep->{'keep-all'} ? scalar(@$group) : delete($keep->{'keep-last'}) // 0;
    for my $backup (sort { $b->{ctime} <=> $a->{ctime} } @$group) {
        next if ($backup->{mark} // '') eq 'protected';
        $backup->{mark} = $left-- > 0 ? 'keep' : 'remove';
    }
    return;
}

1;
