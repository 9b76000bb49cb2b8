package PVE::BackupProvider::Plugin::Folder;

# A small backup provider that keeps what the contract asks for: each archive is a folder of plain files, with the whole
# of each disk. An example for authors, not for use: nothing is compressed, shared or encrypted, there are no containers,
# and the storage plugin that would list its archives is missing.
# It has the properties that `snapkeep conformance` checks of virtual machines (docs/guides/conformance.md).

use strict;
use warnings;

use Fcntl qw(O_RDONLY SEEK_SET);
use File::Path qw(remove_tree);
use IO::Handle;

use PVE::Storage::Common;

use base qw(PVE::BackupProvider::Plugin::Base);

use constant PIECE => 1 << 20;

# Also called for archives that are only looked at: it changes nothing.
sub new {
    my ($class, $storage_plugin, $scfg, $storeid, $log_function) = @_;
    return bless({ folder => $scfg->{'folder-path'}, log => $log_function }, $class);
}

sub provider_name { return 'Folder'; }

sub job_init {
    my ($self, $start_time) = @_;
    die "the folder '$self->{folder}' is not there\n" if !-d $self->{folder};
    return;
}

sub job_cleanup { return; }

# --- Backup.

# Whatever is in a folder *.part is no archive. That mkdir fails where something is makes names unique.
sub backup_init {
    my ($self, $vmid, $vmtype, $start_time) = @_;
    delete $self->{guest};
    for my $number (0 .. 999) {
        my $name = "$vmtype-$vmid-$start_time-$number";
        next if -e "$self->{folder}/$name";
        if (mkdir("$self->{folder}/$name.part", 0700)) {
            $self->{guest} = { vmid => $vmid, name => $name };
            return { 'archive-name' => $name };
        }
        die "cannot make an archive in '$self->{folder}': $!\n" if !$!{EEXIST};
    }
    die "there are too many archives of guest $vmid in one second\n";
}

sub backup_get_mechanism {
    my ($self, $vmid, $vmtype) = @_;
    return $vmtype eq 'qemu' ? 'file-handle' : undef;
}

# No bitmap is used: an incremental backup needs an archive that is known to be the bitmap's base, also after that
# archive was removed, the storage exchanged or the guest rolled back.
sub backup_vm_query_incremental { return {}; }

# The archive is there, whole and for good, when this returns: bitmaps are cleared then, whatever comes later.
sub backup_vm {
    my ($self, $vmid, $guest_config, $volumes, $info) = @_;
    my $path = "$self->{folder}/$self->{guest}->{name}";
    for my $device (sort keys $volumes->%*) {
        eval { copy_volume($volumes->{$device}, "$path.part/$device.raw"); };
        my $error = $@;
        # This text is the caller's own, and ends the whole job.
        die $error if $error eq "interrupted by signal\n";
        die "device $device: $error" if $error;
    }
    write_file("$path.part/guest.conf", $guest_config);
    my $firewall = $info->{'firewall-config'} // '';
    # Taint is a matter of statements: a trailing `if length($firewall)` would taint the path, too.
    if (length($firewall)) {
        write_file("$path.part/firewall.conf", $firewall);
    }
    sync("$path.part");
    rename("$path.part", $path) or die "cannot make the archive '$path': $!\n";
    sync($self->{folder});
    return;
}

# What is committed stays, whatever the outcome. Also called for guests whose backup was never started, and while
# `$self` still has the guest before.
sub backup_cleanup {
    my ($self, $vmid, $vmtype, $success, $info) = @_;
    my $guest = delete $self->{guest};
    return if !defined($guest) || $guest->{vmid} != $vmid;
    my $path = "$self->{folder}/$guest->{name}";
    remove_tree("$path.part") if -e "$path.part";
    return if !$success;
    die "no archive was made of guest $vmid\n" if !-d $path;
    my $size = 0;
    $size += -s $_ for "$path/guest.conf", map { "$path/$_.raw" } devices($path);
    return { stats => { 'archive-size' => $size } };
}

# A die here would end the whole job.
sub backup_handle_log_file { return; }

# Only what the list names may be read. Without a bitmap it names all of the disk, and one that ends early, because what
# makes it failed, is found out by that.
sub copy_volume {
    my ($volume, $path) = @_;
    my ($size, $from, $next_region) = $volume->@{qw(size file-handle next-dirty-region)};
    open(my $to, '+>:raw', $path) or die "cannot make '$path': $!\n";
    truncate($to, $size) or die "cannot write '$path': $!\n";
    my $known = 0;
    while (my ($offset, $length) = $next_region->()) {
        die "the list of dirty regions leaves out what is at $known\n" if $offset != $known;
        $known = $offset + $length;
        copy_region($from, $to, $offset, $length);
        # The host kept a copy of what its guest overwrote. That it cannot be freed harms nobody.
        eval { PVE::Storage::Common::deallocate($from, $offset, $length); };
        die $@ if $@ eq "interrupted by signal\n";
    }
    die "the list of dirty regions ends at $known of $size bytes\n" if $known != $size;
    $to->sync() or die "cannot write '$path': $!\n";
    close($to) or die "cannot write '$path': $!\n";
    return;
}

# Pieces of zeroes are left holes.
sub copy_region {
    my ($from, $to, $offset, $length) = @_;
    while ($length > 0) {
        sysseek($from, $offset, SEEK_SET) // die "cannot seek: $!\n";
        my $count = sysread($from, my $piece, $length < PIECE ? $length : PIECE);
        next if !defined($count) && $!{EINTR};
        die "cannot read at $offset: $!\n" if !defined($count);
        die "the disk ends at $offset\n" if $count == 0;
        write_at($to, $offset, $piece) if $piece =~ m/[^\0]/;
        $offset += $count;
        $length -= $count;
    }
    return;
}

sub write_at {
    my ($to, $offset, $piece) = @_;
    sysseek($to, $offset, SEEK_SET) // die "cannot seek: $!\n";
    while (length($piece)) {
        my $count = syswrite($to, $piece);
        next if !defined($count) && $!{EINTR};
        die "cannot write at $offset: $!\n" if !defined($count);
        substr($piece, 0, $count, '');
    }
    return;
}

sub write_file {
    my ($path, $bytes) = @_;
    open(my $file, '>:raw', $path) or die "cannot make '$path': $!\n";
    print {$file} $bytes;
    $file->flush() && $file->sync() or die "cannot write '$path': $!\n";
    close($file) or die "cannot write '$path': $!\n";
    return;
}

sub sync {
    my ($folder) = @_;
    sysopen(my $handle, $folder, O_RDONLY) or die "cannot open '$folder': $!\n";
    $handle->sync() or die "cannot sync '$folder': $!\n";
    return;
}

# --- Restore. What comes from files and is returned is untainted: it goes on to commands.

# The folder of an archive. Callers pass the volume name first, some of them the storage ID after it.
sub path {
    my ($self, $volname) = @_;
    my ($name) = $volname =~ m!\A(?:backup/)?(qemu-[0-9]+-[0-9]+-[0-9]+)\z! or die "'$volname' is no archive\n";
    my $path = "$self->{folder}/$name";
    die "there is no archive '$name'\n" if !-d $path;
    return $path;
}

sub devices {
    my ($path) = @_;
    opendir(my $folder, $path) or die "cannot read '$path': $!\n";
    return sort map { m/\A([A-Za-z0-9_-]+)\.raw\z/ ? $1 : () } readdir($folder);
}

sub read_file {
    my ($path) = @_;
    open(my $file, '<:raw', $path) or die "cannot read '$path': $!\n";
    local $/ = undef;
    my $bytes = <$file> // '';
    my ($clean) = $bytes =~ m/\A(.*)\z/s;
    return $clean;
}

sub archive_get_guest_config {
    my ($self, $volname) = @_;
    return read_file($self->path($volname) . '/guest.conf');
}

sub archive_get_firewall_config {
    my ($self, $volname) = @_;
    my $file = $self->path($volname) . '/firewall.conf';
    return -e $file ? read_file($file) : undef;
}

sub restore_get_mechanism {
    my ($self, $volname) = @_;
    $self->path($volname);
    return ('qemu-img', 'qemu');
}

sub restore_vm_init {
    my ($self, $volname) = @_;
    my $path = $self->path($volname);
    my $volumes = {};
    for my $device (devices($path)) {
        $volumes->{$device} = { size => -s "$path/$device.raw" };
    }
    return $volumes;
}

sub restore_vm_volume_init {
    my ($self, $volname, $device, $info) = @_;
    my $file = $self->path($volname) . "/$device.raw";
    die "there is no device $device in the archive\n" if !-f $file;
    return { 'qemu-img-path' => $file };
}

sub restore_vm_volume_cleanup { return; }

sub restore_vm_cleanup { return; }

1;
