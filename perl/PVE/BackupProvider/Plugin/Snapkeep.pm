package PVE::BackupProvider::Plugin::Snapkeep;

# The backup provider class: each sub reads its arguments and makes one call to the child (docs/BRIDGE.md). It
# answers the class as shipped and version 5 of the series that introduced it. Arguments are read by shape: a hash
# at the end is the info, the first scalar the volume name, the last one the device.

use strict;
use warnings;

use Socket qw(AF_UNIX PF_UNSPEC SOCK_STREAM);

use PVE::BackupProvider::Plugin::Snapkeep::Bridge;
use PVE::BackupProvider::Plugin::Snapkeep::Clean;
use PVE::BackupProvider::Plugin::Snapkeep::Settings;
use PVE::BackupProvider::Plugin::Snapkeep::Walker;

use base qw(PVE::BackupProvider::Plugin::Base);

use constant REGIONS_MAX => 10_000;

# Runs before locks and for every archive that is looked at: starts nothing.
sub new {
    my ($class, $storage_plugin, $scfg, $storeid, $log_function) = @_;
    my $self = {
        scfg => $scfg,
        storeid => $storeid,
        log => $log_function,
        bridge => PVE::BackupProvider::Plugin::Snapkeep::Bridge->new($scfg, $storeid, $log_function),
    };
    return bless($self, $class);
}

sub provider_name {
    my ($self) = @_;
    return 'Snapkeep';
}

# --- The job.

sub job_init {
    my ($self, $start_time) = @_;
    my $args = { start_time => $start_time };
    $self->{bridge}->call('job_init', $args);
    # A child that ended early fails its guest, not the guests after it.
    $self->{bridge}->resume_with(['job_init', $args]);
    return;
}

# Called a second time if a hook fails, and after an aborted job: never dies.
sub job_cleanup {
    my ($self, $error) = @_;
    $self->{bridge}->resume_with();
    return if !$self->{bridge}->is_started();
    $self->tidy_up('job_cleanup', { error => _error($error) });
    return;
}

sub job_hook {
    my ($self, $phase, $info) = @_;
    return $self->job_init($info->{'start-time'}) if $phase eq 'start';
    return $self->job_cleanup() if $phase eq 'end';
    return $self->job_cleanup($info->{error} // 'aborted') if $phase eq 'abort';
    return;
}

# --- The backup of a guest.

sub backup_init {
    my ($self, $vmid, $vmtype, $start_time) = @_;
    delete $self->{sizes}->{$vmid};
    my $args = { vmid => $vmid, vmtype => $vmtype, start_time => $start_time };
    my $result = $self->{bridge}->call('backup_init', $args);
    my $name = PVE::BackupProvider::Plugin::Snapkeep::Clean::name($result->{'archive-name'}, 'archive name');
    $self->{names}->{$vmid} = $name;
    return { 'archive-name' => $name };
}

sub backup_cleanup {
    my ($self, $vmid, $vmtype, $success, $info) = @_;
    delete $self->{names}->{$vmid} if defined($vmid);
    delete $self->{walker};
    if ($success) {
        my $size = $self->guest_is_done($vmid, $vmtype);
        return if !defined($size);
        return { stats => { 'archive-size' => $size } };
    }
    # Also called for guests that never came to backup_init.
    return if !$self->{bridge}->is_started();
    my $args = { vmid => $vmid, vmtype => $vmtype, success => 0, error => _error($info->{error}) };
    $self->tidy_up('backup_cleanup', $args);
    return;
}

sub backup_hook {
    my ($self, $phase, $vmid, $vmtype, $info) = @_;
    if ($phase eq 'start') {
        $self->backup_init($vmid, $vmtype, $info->{'start-time'}) if !defined($self->{names}->{$vmid});
    } elsif ($phase eq 'prepare') {
        $self->backup_container_prepare($vmid, $info) if ($vmtype // 'lxc') eq 'lxc';
    } elsif ($phase eq 'end') {
        $self->backup_cleanup($vmid, $vmtype, 1, $info);
    } elsif ($phase eq 'abort') {
        $self->backup_cleanup($vmid, $vmtype, 0, $info);
    }
    return;
}

# May come before or after the phase `start`.
sub backup_get_archive_name {
    my ($self, $vmid, $vmtype, $backup_time) = @_;
    $self->backup_init($vmid, $vmtype, $backup_time) if !defined($self->{names}->{$vmid});
    return $self->{names}->{$vmid};
}

# May come before or after the phase `end`.
sub backup_get_task_size {
    my ($self, $vmid) = @_;
    return $self->{sizes}->{$vmid} // $self->guest_is_done($vmid, undef);
}

# The size of the archive that was committed; dies if there is none.
sub guest_is_done {
    my ($self, $vmid, $vmtype) = @_;
    my $args = { vmid => $vmid, vmtype => $vmtype, success => 1 };
    my $result = $self->{bridge}->call('backup_cleanup', $args);
    return $self->{sizes}->{$vmid} if !defined($result);
    my $size = PVE::BackupProvider::Plugin::Snapkeep::Clean::number($result->{'archive-size'}, 'size');
    $self->{sizes}->{$vmid} = $size;
    return $size;
}

# Version 5 wants the bitmap's ID too, in list context.
sub backup_get_mechanism {
    my ($self, $vmid, $vmtype) = @_;
    my $result = $self->{bridge}->call('backup_get_mechanism', { vmid => $vmid, vmtype => $vmtype });
    my ($mechanism, $bitmap) = $result->@{qw(mechanism bitmap)};
    $mechanism = PVE::BackupProvider::Plugin::Snapkeep::Clean::name($mechanism, 'mechanism') if defined($mechanism);
    $bitmap = PVE::BackupProvider::Plugin::Snapkeep::Clean::name($bitmap, 'bitmap') if defined($bitmap);
    return wantarray ? ($mechanism, $bitmap) : $mechanism;
}

# Its caller takes no error: a die here would end the whole job.
sub backup_handle_log_file {
    my ($self, $vmid, $filename) = @_;
    local ($@, $!);
    my $path = eval { PVE::BackupProvider::Plugin::Snapkeep::Clean::text($filename) };
    return if !defined($path) || !-e $filename || !$self->{bridge}->is_started();
    $self->tidy_up('backup_handle_log_file', { vmid => $vmid, path => $path });
    return;
}

# --- The data of a virtual machine.

sub backup_vm_query_incremental {
    my ($self, $vmid, $volumes) = @_;
    my %asked = map { $_ => { size => $volumes->{$_}->{size} } } keys $volumes->%*;
    my $result = $self->{bridge}->call('backup_vm_query_incremental', { vmid => $vmid, volumes => \%asked });
    my $modes = {};
    for my $device (keys %asked) {
        my $mode = $result->{$device};
        next if !defined($mode);
        $mode = PVE::BackupProvider::Plugin::Snapkeep::Clean::name($mode, 'bitmap mode');
        $modes->{$device} = $mode;
    }
    return $modes;
}

sub backup_vm {
    my ($self, $vmid, $guest_config, $volumes, $info) = @_;
    local $!;
    my %told;
    for my $device (sort keys $volumes->%*) {
        my $volume = $volumes->{$device};
        my %of = (size => $volume->{size}, bitmap_mode => $volume->{'bitmap-mode'} // 'none');
        if (defined(my $path = $volume->{'nbd-path'})) {
            $of{nbd_path} = PVE::BackupProvider::Plugin::Snapkeep::Clean::text($path);
            $of{bitmap_name} = $volume->{'bitmap-name'};
        } else {
            $of{fd} = fileno($volume->{'file-handle'});
            $self->send_regions($vmid, $device, $volume->{'next-dirty-region'});
        }
        $told{$device} = \%of;
    }
    my $args = { vmid => $vmid, volumes => \%told, _configs($guest_config, $info) };
    my $result = $self->{bridge}->call('backup_vm', $args);
    my $size = PVE::BackupProvider::Plugin::Snapkeep::Clean::number($result->{'archive-size'}, 'size');
    $self->{sizes}->{$vmid} = $size;
    return;
}

# All dirty regions of a device, in pieces. The sub returns an empty list at their end.
sub send_regions {
    my ($self, $vmid, $device, $next) = @_;
    return if !defined($next);
    my ($last, @regions) = (0);
    while (!$last) {
        my ($offset, $length) = eval { $next->() };
        if (my $error = $@) {
            # This text is the caller's own, and ends the whole job.
            die $error if $error eq "interrupted by signal\n";
            die "device $device: its list of dirty regions failed: $error";
        }
        $last = defined($offset) ? 0 : 1;
        push @regions, [ "$offset", "$length" ] if !$last;
        next if !$last && @regions < REGIONS_MAX;
        my $args = { vmid => $vmid, device => $device, regions => [@regions], last => $last };
        $self->{bridge}->call('backup_vm_regions', $args);
        @regions = ();
    }
    return;
}

# --- The data of a container.

# As root, in the task: the child gets one end of a socket pair, the walker will have the other.
sub backup_container_prepare {
    my ($self, $vmid, $info) = @_;
    local $!;
    delete $self->{walker};
    socketpair(my $walkers, my $childs, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die "cannot make a socket pair: $!\n";
    my $args = {
        vmid => $vmid,
        walker_fd => fileno($childs),
        directory => PVE::BackupProvider::Plugin::Snapkeep::Clean::text($info->{directory}),
        sources => _texts($info->{sources}),
        backup_user_id => $info->{'backup-user-id'},
        firewall_config => PVE::BackupProvider::Plugin::Snapkeep::Clean::to_base64($info->{'firewall-config'}),
        bandwidth_limit => PVE::BackupProvider::Plugin::Snapkeep::Clean::digits($info->{'bandwidth-limit'}),
    };
    $self->{bridge}->call('backup_container_prepare', $args);
    close($childs);
    $self->{bridge}->lend();
    $self->{walker} = $walkers;
    return;
}

# In the container's user namespace (or in the task): this process executes the walker, and speaks to the task's
# child over the socket that it inherited. That is the one use across a fork: what is committed there counts.
sub backup_container {
    my ($self, $vmid, $guest_config, $exclude_patterns, $info) = @_;
    local ($!, $?);
    my $socket = delete $self->{walker} or die "container $vmid was not prepared\n";
    my $args = {
        vmid => $vmid,
        pid => $$,
        guest_config => PVE::BackupProvider::Plugin::Snapkeep::Clean::to_base64($guest_config),
        exclude => _texts($exclude_patterns),
    };
    my $program = PVE::BackupProvider::Plugin::Snapkeep::Settings::program($self->{scfg});
    my $walker = PVE::BackupProvider::Plugin::Snapkeep::Walker->start($program, $socket);
    my (undef, $error) =
        $self->{bridge}->attempt('backup_container', $args, inherited => 1, watch => $walker->watch());
    my $words = $walker->finish();
    return if !defined($error);
    chomp($error);
    die length($words) ? "$error (the walker said: $words)\n" : "$error\n";
}

# --- What is in an archive. Outside of tasks there is no log, so these are silent; and a worker of the web
# interface that waited for ever would be missed by all.
my @LOOK = (quiet => 1, limit => 60);

sub archive_get_guest_config {
    my ($self, @args) = @_;
    my $call = $self->volume(0, @args);
    my $result = $self->{bridge}->call('archive_get_guest_config', $call, @LOOK);
    return PVE::BackupProvider::Plugin::Snapkeep::Clean::from_base64($result);
}

sub archive_get_firewall_config {
    my ($self, @args) = @_;
    my $call = $self->volume(0, @args);
    my $result = $self->{bridge}->call('archive_get_firewall_config', $call, @LOOK);
    return PVE::BackupProvider::Plugin::Snapkeep::Clean::from_base64($result);
}

sub restore_get_guest_config { my ($self, @args) = @_; return $self->archive_get_guest_config(@args); }

sub restore_get_firewall_config { my ($self, @args) = @_; return $self->archive_get_firewall_config(@args); }

sub restore_get_mechanism {
    my ($self, @args) = @_;
    my $call = $self->volume(0, @args);
    my $result = $self->{bridge}->call('restore_get_mechanism', $call, @LOOK);
    my $mechanism = PVE::BackupProvider::Plugin::Snapkeep::Clean::name($result->[0], 'mechanism');
    my $vmtype = PVE::BackupProvider::Plugin::Snapkeep::Clean::name($result->[1], 'guest type');
    return ($mechanism, $vmtype);
}

# --- Restores.

sub restore_vm_init {
    my ($self, @args) = @_;
    my $result = $self->{bridge}->call('restore_vm_init', $self->volume(0, @args));
    my $volumes = {};
    for my $told (sort keys $result->%*) {
        my $device = PVE::BackupProvider::Plugin::Snapkeep::Clean::name($told, 'device name');
        my $size = PVE::BackupProvider::Plugin::Snapkeep::Clean::number($result->{$told}->{size}, 'size');
        $volumes->{$device} = { size => $size };
    }
    return $volumes;
}

# Always called, and releases all that is open.
sub restore_vm_cleanup {
    my ($self, @args) = @_;
    return if !$self->{bridge}->is_started();
    $self->tidy_up('restore_vm_cleanup', $self->volume(0, @args));
    return;
}

sub restore_vm_volume_init {
    my ($self, @args) = @_;
    my $result = $self->{bridge}->call('restore_vm_volume_init', $self->volume(1, @args));
    my $path = PVE::BackupProvider::Plugin::Snapkeep::Clean::path($result->{'qemu-img-path'}, 'path');
    return { 'qemu-img-path' => $path };
}

sub restore_vm_volume_cleanup {
    my ($self, @args) = @_;
    $self->{bridge}->call('restore_vm_volume_cleanup', $self->volume(1, @args));
    return;
}

sub restore_container_init {
    my ($self, @args) = @_;
    my $result = $self->{bridge}->call('restore_container_init', $self->volume(0, @args));
    my ($key) = grep { defined($result->{$_}) } qw(archive-directory tar-path);
    die "the program answered without a path\n" if !defined($key);
    my $path = PVE::BackupProvider::Plugin::Snapkeep::Clean::path($result->{$key}, 'path');
    return { $key => $path };
}

sub restore_container_cleanup {
    my ($self, @args) = @_;
    return if !$self->{bridge}->is_started();
    $self->tidy_up('restore_container_cleanup', $self->volume(0, @args));
    return;
}

# --- Arguments.

# `$volname`, perhaps the storage ID, perhaps the device, perhaps the info, as arguments of a call.
sub volume {
    my ($self, $has_device, $volname, @rest) = @_;
    pop @rest while @rest && (!defined($rest[-1]) || ref($rest[-1]));
    my $device = $has_device ? pop @rest : undef;
    for my $storeid (grep { defined($_) && $_ ne $self->{storeid} } @rest) {
        $self->{log}->('warn', "ignoring the storage ID '$storeid', this is '$self->{storeid}'") if $self->{log};
    }
    my $call = { volname => $volname };
    $call->{device} = $device if $has_device;
    return $call;
}

# A call whose failure is told and harms nobody.
sub tidy_up {
    my ($self, $name, $args) = @_;
    my (undef, $error) = $self->{bridge}->attempt($name, $args);
    return if !defined($error);
    chomp($error);
    $self->{log}->('warn', "$name: $error") if $self->{log};
    return;
}

sub _configs {
    my ($guest_config, $info) = @_;
    return (
        guest_config => PVE::BackupProvider::Plugin::Snapkeep::Clean::to_base64($guest_config),
        firewall_config => PVE::BackupProvider::Plugin::Snapkeep::Clean::to_base64($info->{'firewall-config'}),
        bandwidth_limit => PVE::BackupProvider::Plugin::Snapkeep::Clean::digits($info->{'bandwidth-limit'}),
    );
}

# A failure's text, whatever it is made of.
sub _error {
    my ($error) = @_;
    return undef if !defined($error);
    local $@;
    return eval { PVE::BackupProvider::Plugin::Snapkeep::Clean::text($error) } // 'an error that is no text';
}

sub _texts {
    my ($list) = @_;
    return [map { PVE::BackupProvider::Plugin::Snapkeep::Clean::text($_) } ($list // [])->@*];
}

1;
