package PVE::Tools;

# What the plugin uses of it.

use strict;
use warnings;

use Exporter qw(import);
our @EXPORT_OK = qw(file_get_contents file_set_contents);

sub file_get_contents {
    my ($path) = @_;
    open(my $file, '<:raw', $path) or die "cannot read $path: $!\n";
    local $/ = undef;
    return scalar(<$file>);
}

sub file_set_contents {
    my ($path, $content, $mode) = @_;
    open(my $file, '>:raw', "$path.tmp") or die "cannot write $path: $!\n";
    chmod($mode // 0644, "$path.tmp");
    print $file $content;
    close($file) or die "cannot write $path: $!\n";
    rename("$path.tmp", $path) or die "cannot write $path: $!\n";
    return;
}

1;
