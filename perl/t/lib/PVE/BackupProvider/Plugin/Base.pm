package PVE::BackupProvider::Plugin::Base;

# The base class's place, as far as it is used: it has no behaviour of its own.

use strict;
use warnings;

1;
