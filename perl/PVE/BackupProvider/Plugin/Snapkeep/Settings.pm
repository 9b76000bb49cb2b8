package PVE::BackupProvider::Plugin::Snapkeep::Settings;

# What a section of storage.cfg means for the child: its program, its settings, and the files of secrets.

use strict;
use warnings;

use constant PROGRAM => '/usr/bin/snapkeep';
use constant SECRETS_FOLDER => '/etc/pve/priv/storage';
# Where the hosts of a cluster remember the newest backup of each guest.
use constant MEMORY_FOLDER => '/etc/pve/priv/snapkeep';

# Properties whose values are contents of files, never kept in storage.cfg. `pvesm` asks for what is named `password`.
use constant SECRETS => qw(password snapkeep-key);

# What the file of a secret is named by, after the storage.
my %file_of = (password => 'snapkeep-passphrase', 'snapkeep-key' => 'snapkeep-key');

# Tests keep theirs elsewhere.
our $secrets_folder = SECRETS_FOLDER;
our $memory_folder = MEMORY_FOLDER;

# The properties that are passed on as they are: name of a setting to name of a property.
my %passed_on = (
    repository => 'snapkeep-repository',
    identity => 'snapkeep-identity',
    vm_mechanism => 'snapkeep-vm-mechanism',
    accept_unverified_regions => 'snapkeep-accept-unverified-regions',
    container_restore => 'snapkeep-container-restore',
    change_detection => 'snapkeep-change-detection',
    workers => 'snapkeep-workers',
);

# The absolute path of the program.
sub program {
    my ($scfg) = @_;
    my $path = $scfg->{'snapkeep-program'} // PROGRAM;
    my ($clean) = $path =~ m!\A(/[^\0\n]+)\z!;
    die "snapkeep-program '$path' is not an absolute path\n" if !defined($clean);
    return $clean;
}

# The path of the file that holds a secret of a storage, by its property; any other name is that of a file.
sub secret_file {
    my ($storeid, $name) = @_;
    my ($id) = $storeid =~ m/\A([A-Za-z][A-Za-z0-9._-]*)\z/;
    die "invalid storage ID '$storeid'\n" if !defined($id);
    my $file = $file_of{$name} // $name;
    return "$secrets_folder/$id.$file";
}

# The settings of `hello`. Files of secrets are named only if they are there.
sub settings {
    my ($scfg, $storeid) = @_;

    my $settings = { namespace => $scfg->{'snapkeep-namespace'} // 'pve' };
    for my $key (keys %passed_on) {
        my $value = $scfg->{ $passed_on{$key} };
        $settings->{$key} = "$value" if defined($value);
    }
    my %file = (
        passphrase_file => 'password',
        key_file => 'snapkeep-key',
        s3_credentials_file => 'snapkeep-s3-credentials',
    );
    for my $key (keys %file) {
        my $path = secret_file($storeid, $file{$key});
        $settings->{$key} = $path if -e $path;
    }
    $settings->{recovery_kit} = secret_file($storeid, 'snapkeep-recovery-kit');
    $settings->{memory_folder} = $memory_folder;
    return $settings;
}

# The files of what is remembered by this storage; another one of the same ID has another identity.
sub memory_files {
    my ($scfg, $storeid) = @_;
    my $identity = $scfg->{'snapkeep-identity'} // return;
    my @files;
    opendir(my $dir, $memory_folder) or return;
    for my $name (readdir($dir)) {
        push @files, "$memory_folder/$1" if $name =~ m/\A([a-z0-9+-]+\+\Q$storeid.$identity\E(?:[.]new)?)\z/;
    }
    return @files;
}

1;
