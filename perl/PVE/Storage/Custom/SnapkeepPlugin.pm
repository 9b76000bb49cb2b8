package PVE::Storage::Custom::SnapkeepPlugin;

# The storage type `snapkeep`: backups in a repository of Snapkeep. Each sub is one call to a child of its own
# (docs/BRIDGE.md). Callers poll every storage in one process without a time-out, so calls have limits here.

use strict;
use warnings;

use PVE::BackupProvider::Plugin::Snapkeep;
use PVE::BackupProvider::Plugin::Snapkeep::Bridge;
use PVE::BackupProvider::Plugin::Snapkeep::Clean;
use PVE::BackupProvider::Plugin::Snapkeep::Settings;
use PVE::Tools qw(file_get_contents file_set_contents);

use base qw(PVE::Storage::Plugin);

# The newest version of the plugin interface that this file was written for.
use constant API_KNOWN => 15;
# Seconds: for what is polled, for what somebody waits for, for opening a repository under the lock of storage.cfg.
use constant POLL_LIMIT => 5;
use constant POLL_PATIENCE => 0.2;
use constant ASK_LIMIT => 30;
use constant OPEN_LIMIT => 45;

my $ARCHIVE = qr/vzdump-(qemu|lxc)-([1-9][0-9]{2,8})-[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}_[0-9]{2}_[0-9]{2}Z-[0-9a-f]{16}/;

# A higher number than the host's is refused, a lower one warned of in every command.
sub api {
    my $theirs = PVE::Storage->can('APIVER');
    my $version = $theirs ? $theirs->() : API_KNOWN;
    return $version < API_KNOWN ? $version : API_KNOWN;
}

sub type { return 'snapkeep'; }

sub plugindata {
    return {
        content => [{ backup => 1, none => 1 }, { backup => 1 }],
        features => { 'backup-provider' => 1 },
        'sensitive-properties' => { password => 1, 'snapkeep-key' => 1 },
    };
}

# Names of properties are shared by all plugins: a clash would end every command. `password`, the passphrase, is the
# interface's own, which CIFS declares and others use too.
sub properties {
    return {
        'snapkeep-repository' => {
            type => 'string',
            pattern => '(?:/|s3://)[^\0\n]+',
            maxLength => 4096,
            description => 'Folder of the repository, or a bucket as s3://BUCKET/PREFIX?endpoint=URL&region=NAME.',
        },
        'snapkeep-namespace' => {
            type => 'string',
            pattern => '[a-z0-9-]{1,32}',
            default => 'pve',
            description => 'Part of the repository that this cluster writes. Clusters that share a repository'
                . ' need different ones.',
        },
        'snapkeep-identity' => {
            type => 'string',
            pattern => '[0-9a-f]{16}',
            description => 'Made when the storage is added; dirty bitmaps are trusted by it.',
        },
        'snapkeep-key' => {
            type => 'string',
            maxLength => 4096,
            description => 'Content of a key file of the repository.',
        },
        'snapkeep-create' => {
            type => 'boolean',
            description => 'Make the repository when the storage is added.',
        },
        'snapkeep-vm-mechanism' => {
            type => 'string',
            enum => ['nbd', 'file-handle'],
            default => 'nbd',
            description => 'How disks of virtual machines are read.',
        },
        'snapkeep-accept-unverified-regions' => {
            type => 'boolean',
            default => 0,
            description => 'With file-handle: reuse dirty bitmaps although nobody can tell whether the list of'
                . ' dirty regions is whole.',
        },
        'snapkeep-container-restore' => {
            type => 'string',
            enum => ['directory', 'tar'],
            default => 'directory',
            description => 'How containers are handed over to be restored.',
        },
        'snapkeep-change-detection' => {
            type => 'string',
            enum => ['metadata', 'data'],
            default => 'metadata',
            description => 'By what files of containers are taken for unchanged.',
        },
        'snapkeep-workers' => {
            type => 'integer',
            minimum => 1,
            maximum => 64,
            description => 'Threads of a backup or restore.',
        },
        # Who may only add storages must not choose what root runs: where root alone writes.
        'snapkeep-program' => {
            type => 'string',
            pattern => '/(?:usr|opt)(?:/[^/.\0\n][^/\0\n]*)+',
            maxLength => 4096,
            default => PVE::BackupProvider::Plugin::Snapkeep::Settings::PROGRAM,
            description => 'Absolute path of the program.',
        },
    };
}

# Sensitive ones are taken out before required ones are looked for, so they are optional.
sub options {
    my @changeable = qw(password snapkeep-key snapkeep-vm-mechanism snapkeep-accept-unverified-regions
        snapkeep-container-restore snapkeep-change-detection snapkeep-workers snapkeep-program nodes disable shared
        content prune-backups max-protected-backups);
    my @fixed = qw(snapkeep-namespace snapkeep-identity snapkeep-create);
    return {
        'snapkeep-repository' => { fixed => 1 },
        (map { $_ => { optional => 1, fixed => 1 } } @fixed),
        (map { $_ => { optional => 1 } } @changeable),
    };
}

# --- Adding, changing and removing the storage.

sub on_add_hook {
    my ($class, $storeid, $scfg, %sensitive) = @_;

    local $!;
    my $create = delete $scfg->{'snapkeep-create'};
    $scfg->{'snapkeep-identity'} //= _new_identity();
    my $given = grep { defined($sensitive{$_}) } PVE::BackupProvider::Plugin::Snapkeep::Settings::SECRETS;
    die "a new repository needs a password or a snapkeep-key\n" if $create && !$given;
    _with_secrets(
        $storeid,
        \%sensitive,
        sub { _once($scfg, $storeid, $create ? 'storage_create' : 'storage_check', {}, OPEN_LIMIT) },
    );
    if ($create) {
        my $kit = _secret_file($storeid, 'snapkeep-recovery-kit');
        print "The recovery kit of the new repository is $kit: copy it to a safe place away from this host, then"
            . " delete it here. Without a key nobody can read the backups.\n";
    }
    return;
}

# From version 13 of the interface on.
sub on_update_hook_full {
    my ($class, $storeid, $scfg, $update, $delete, $sensitive) = @_;
    return $class->_update($storeid, { %$scfg, ($update // {})->%* }, $sensitive // {});
}

# Before, what does not change has to be looked up, to see whether a new secret opens the repository.
sub on_update_hook {
    my ($class, $storeid, $update, %sensitive) = @_;
    my $scfg = PVE::Storage::storage_config(PVE::Storage::config(), $storeid, 1) // {};
    return $class->_update($storeid, { %$scfg, %$update }, \%sensitive);
}

sub _update {
    my ($class, $storeid, $scfg, $sensitive) = @_;
    my @changed = grep { exists($sensitive->{$_}) } PVE::BackupProvider::Plugin::Snapkeep::Settings::SECRETS;
    return if !@changed;
    # A secret that is taken away leaves a storage that cannot be opened until another is given.
    my $is_given = grep { defined($sensitive->{$_}) } @changed;
    my $opens = $is_given && defined($scfg->{'snapkeep-repository'});
    my $check = $opens ? sub { _once($scfg, $storeid, 'storage_check', {}, OPEN_LIMIT) } : sub { };
    _with_secrets($storeid, $sensitive, $check);
    return;
}

# Removes our secrets; neither the repository nor the recovery kit, which may be the only one.
sub on_delete_hook {
    my ($class, $storeid, $scfg) = @_;
    _put_secret($storeid, $_, undef) for PVE::BackupProvider::Plugin::Snapkeep::Settings::SECRETS;
    unlink(PVE::BackupProvider::Plugin::Snapkeep::Settings::memory_files($scfg, $storeid));
    my $kit = _secret_file($storeid, 'snapkeep-recovery-kit');
    print "The recovery kit $kit is left: copy it to a safe place, then delete it.\n" if -e $kit;
    return;
}

# Sets the secrets that are given (undef: none) and runs `$check`; if that dies, they are what they were.
sub _with_secrets {
    my ($storeid, $sensitive, $check) = @_;
    local $!;
    my @names = grep { exists($sensitive->{$_}) } PVE::BackupProvider::Plugin::Snapkeep::Settings::SECRETS;
    my %before;
    for my $name (@names) {
        my $path = _secret_file($storeid, $name);
        $before{$name} = -e $path ? file_get_contents($path) : undef;
    }
    my $done = eval {
        _put_secret($storeid, $_, $sensitive->{$_}) for @names;
        my @there = grep { -e _secret_file($storeid, $_) } PVE::BackupProvider::Plugin::Snapkeep::Settings::SECRETS;
        die "give either a password or a snapkeep-key, not both\n" if @there > 1;
        $check->();
        1;
    };
    return if $done;
    my $error = $@;
    for my $name (@names) {
        eval { _put_secret($storeid, $name, $before{$name}); 1 } or warn $@;
    }
    die $error;
}

sub _put_secret {
    my ($storeid, $name, $content) = @_;
    my $path = _secret_file($storeid, $name);
    if (!defined($content)) {
        unlink($path) or $!{ENOENT} or die "cannot remove $path: $!\n";
        return;
    }
    my $folder = $PVE::BackupProvider::Plugin::Snapkeep::Settings::secrets_folder;
    mkdir($folder, 0700) or $!{EEXIST} or die "cannot make $folder: $!\n";
    my $bytes = PVE::BackupProvider::Plugin::Snapkeep::Clean::text($content);
    utf8::encode($bytes);
    die "the password must be one line\n" if $name eq 'password' && $bytes =~ m/\n(?!\z)/;
    $bytes .= "\n" if $bytes !~ m/\n\z/;
    file_set_contents($path, $bytes, 0600);
    return;
}

sub _secret_file {
    my ($storeid, $name) = @_;
    return PVE::BackupProvider::Plugin::Snapkeep::Settings::secret_file($storeid, $name);
}

sub _new_identity {
    open(my $random, '<:raw', '/dev/urandom') or die "cannot open /dev/urandom: $!\n";
    my $count = sysread($random, my $bytes, 8);
    die "cannot read /dev/urandom\n" if ($count // 0) != 8;
    my $hex = unpack('H*', $bytes);
    my ($identity) = $hex =~ m/\A([0-9a-f]{16})\z/;
    return $identity;
}

# --- The state of the storage.

sub check_connection { return 1; }

# What is polled calls this and then `status`, with one cache for both: one child serves both.
sub activate_storage {
    my ($class, $storeid, $scfg, $cache) = @_;
    my $status = _once($scfg, $storeid, 'storage_status', {}, POLL_LIMIT);
    die "storage '$storeid': the repository cannot be reached\n" if !$status->{active};
    $cache->{"snapkeep-status-$storeid"} = $status if ref($cache);
    return 1;
}

sub deactivate_storage { return 1; }

sub activate_volume { return 1; }

sub deactivate_volume { return 1; }

sub status {
    my ($class, $storeid, $scfg, $cache) = @_;
    my $status = ref($cache) ? delete $cache->{"snapkeep-status-$storeid"} : undef;
    $status //= _once($scfg, $storeid, 'storage_status', {}, POLL_LIMIT);
    return (0, 0, 0, 0) if !$status->{active};
    my @sizes = map { PVE::BackupProvider::Plugin::Snapkeep::Clean::number($status->{$_}, $_) } qw(total available used);
    return (@sizes, 1);
}

sub get_identity {
    my ($class, $scfg, $storeid) = @_;
    my $answer = _once($scfg, $storeid, 'storage_check', {}, ASK_LIMIT);
    my $id = PVE::BackupProvider::Plugin::Snapkeep::Clean::name($answer->{repository}, 'repository ID');
    my $namespace = $scfg->{'snapkeep-namespace'} // 'pve';
    return "snapkeep://$id/$namespace";
}

sub new_backup_provider {
    my ($class, $scfg, $storeid, $log_function) = @_;
    return PVE::BackupProvider::Plugin::Snapkeep->new($class, $scfg, $storeid, $log_function);
}

# --- Archives.

sub parse_volname {
    my ($class, $volname) = @_;
    my ($name, undef, $vmid) = $volname =~ m!\Abackup/($ARCHIVE)\z!;
    die "unable to parse the volume name '$volname' of a snapkeep storage\n" if !defined($name);
    return ('backup', $name, $vmid, undef, undef, undef, 'snapkeep');
}

# What shows where an archive is; there is no such file.
sub path {
    my ($class, $scfg, $volname, $storeid, $snapname) = @_;
    die "archives have no snapshots\n" if defined($snapname);
    my ($vtype, $name, $vmid) = $class->parse_volname($volname);
    my $path = "snapkeep:$scfg->{'snapkeep-repository'}:$name";
    return wantarray ? ($path, $vmid, $vtype) : $path;
}

sub filesystem_path {
    my ($class, $scfg, $volname, $snapname) = @_;
    return $class->path($scfg, $volname, undef, $snapname);
}

sub list_volumes {
    my ($class, $storeid, $scfg, $vmid, $content_types) = @_;
    return [] if !grep { $_ eq 'backup' } ($content_types // [])->@*;
    my $log = sub { my ($level, $message) = @_; warn "storage '$storeid': $message\n" if $level ne 'info'; };
    my $list = _once($scfg, $storeid, 'storage_list', { vmid => $vmid, vmtype => undef }, ASK_LIMIT, $log);
    return [map { _entry($storeid, $_) } @$list];
}

sub _entry {
    my ($storeid, $told) = @_;
    my ($name, $type, $vmid) = $told->{archive} =~ m/\A($ARCHIVE)\z/;
    die "the program listed a wrong archive\n" if !defined($name);
    my $size = PVE::BackupProvider::Plugin::Snapkeep::Clean::number($told->{size}, 'size');
    my $ctime = PVE::BackupProvider::Plugin::Snapkeep::Clean::number($told->{ctime}, 'time');
    my $entry = {
        volid => "$storeid:backup/$name",
        format => 'snapkeep',
        content => 'backup',
        size => $size,
        vmid => 0 + $vmid,
        ctime => $ctime,
        subtype => $type,
    };
    $entry->{protected} = 1 if $told->{protected};
    $entry->{encrypted} = '1' if $told->{encrypted};
    my $notes = _notes($told);
    my ($first_line) = $notes =~ m/\A([^\n]*)/;
    $entry->{notes} = $first_line if length($first_line);
    $entry->{verification} = _verification($told->{verification}) if $told->{verification};
    return $entry;
}

# The web interface reads the time out of a task's ID, so that is what it gets; there is no such task.
sub _verification {
    my ($told) = @_;
    my ($state) = $told->{state} =~ m/\A(ok|failed)\z/;
    my $time = PVE::BackupProvider::Plugin::Snapkeep::Clean::number($told->{time}, 'time');
    my $hex = sprintf('%08X', $time);
    return { state => $state // 'failed', upid => "UPID:snapkeep:00000000:00000000:$hex:verify::root\@pam:" };
}

sub _notes {
    my ($told) = @_;
    my $notes = PVE::BackupProvider::Plugin::Snapkeep::Clean::from_base64($told->{notes}) // '';
    utf8::decode($notes);
    return $notes;
}

# An archive, as the child tells it.
sub _archive {
    my ($class, $scfg, $storeid, $volname) = @_;
    my (undef, $name) = $class->parse_volname($volname);
    return _once($scfg, $storeid, 'storage_get', { archive => $name }, ASK_LIMIT);
}

# A size of 0 would be an error of the caller.
sub volume_size_info {
    my ($class, $scfg, $storeid, $volname, $timeout) = @_;
    my $archive = $class->_archive($scfg, $storeid, $volname);
    my $size = PVE::BackupProvider::Plugin::Snapkeep::Clean::number($archive->{size}, 'size');
    $size = 1 if $size < 1;
    return wantarray ? ($size, 'snapkeep', $size, undef) : $size;
}

sub get_volume_attribute {
    my ($class, $scfg, $storeid, $volname, $attribute) = @_;
    return undef if $attribute ne 'notes' && $attribute ne 'protected';
    my $archive = $class->_archive($scfg, $storeid, $volname);
    return _notes($archive) if $attribute eq 'notes';
    return $archive->{protected} ? 1 : 0;
}

sub update_volume_attribute {
    my ($class, $scfg, $storeid, $volname, $attribute, $value) = @_;
    my (undef, $name) = $class->parse_volname($volname);
    if ($attribute eq 'notes') {
        # Callers have characters, as they get them.
        my $notes = $value // '';
        utf8::encode($notes);
        my $args = { archive => $name, notes => PVE::BackupProvider::Plugin::Snapkeep::Clean::to_base64($notes) };
        _once($scfg, $storeid, 'storage_set_notes', $args, ASK_LIMIT);
    } elsif ($attribute eq 'protected') {
        my $args = { archive => $name, protected => $value ? 1 : 0 };
        _once($scfg, $storeid, 'storage_set_protected', $args, ASK_LIMIT);
    } else {
        die "attribute '$attribute' is not supported for storage type 'snapkeep'\n";
    }
    return;
}

sub get_volume_notes {
    my ($class, $scfg, $storeid, $volname, $timeout) = @_;
    return $class->get_volume_attribute($scfg, $storeid, $volname, 'notes');
}

sub update_volume_notes {
    my ($class, $scfg, $storeid, $volname, $notes, $timeout) = @_;
    return $class->update_volume_attribute($scfg, $storeid, $volname, 'notes', $notes);
}

# The caller holds a lock that ends after 60 s, and does not look how a task that it is given ends. Forgetting an
# archive is one small file, so it is done here. A protected one is refused.
sub free_image {
    my ($class, $storeid, $scfg, $volname, $is_base, $format) = @_;
    my (undef, $name) = $class->parse_volname($volname);
    _once($scfg, $storeid, 'storage_free', { archive => $name }, ASK_LIMIT);
    return undef;
}

# `$keep` belongs to all guests of a job, and the choice may change what it is given: it gets a copy.
sub prune_backups {
    my ($class, $scfg, $storeid, $keep, $vmid, $type, $dryrun, $logfunc) = @_;
    $logfunc //= sub { my ($level, $message) = @_; print "$message\n"; };

    my $args = { vmid => $vmid, vmtype => $type };
    # Nobody waits for a task.
    my $list = _once($scfg, $storeid, 'storage_list', $args, $dryrun ? ASK_LIMIT : undef, $logfunc);
    my ($result, %groups) = ([]);
    for my $entry (map { _entry($storeid, $_) } @$list) {
        next if defined($vmid) && $entry->{vmid} != $vmid;
        next if defined($type) && $entry->{subtype} ne $type;
        my $backup = { $entry->%{qw(volid ctime vmid)}, type => $entry->{subtype} };
        $backup->{mark} = 'protected' if $entry->{protected};
        push $groups{"$entry->{subtype}/$entry->{vmid}"}->@*, $backup;
        push @$result, $backup;
    }
    for my $group (sort keys %groups) {
        PVE::Storage::prune_mark_backup_group($groups{$group}, {%$keep});
    }
    return $result if $dryrun;

    my @failed;
    for my $backup (grep { $_->{mark} eq 'remove' } @$result) {
        $logfunc->('info', "removing backup '$backup->{volid}'");
        my ($name) = $backup->{volid} =~ m!/($ARCHIVE)\z!;
        # A signal is died of, and ends it all.
        my (undef, $error) = _try($scfg, $storeid, 'storage_free', { archive => $name }, undef);
        next if !defined($error);
        chomp($error);
        $logfunc->('err', "removing backup '$backup->{volid}' failed: $error");
        push @failed, $backup->{volid};
    }
    die 'could not remove ' . join(', ', @failed) . "\n" if @failed;
    return $result;
}

# --- What a storage of backups does not have.

sub list_images { return []; }

sub volume_has_feature { return undef; }

sub volume_export_formats { return (); }

sub volume_import_formats { return (); }

sub volume_snapshot_info { return {}; }

for my $name (qw(alloc_image clone_image create_base rename_volume volume_resize volume_snapshot
    volume_snapshot_delete volume_snapshot_rollback volume_export volume_import map_volume))
{
    no strict 'refs';
    *{$name} = sub { die "a snapkeep storage has backups only: $name is not possible\n"; };
}

# One call to a child that ends with it; dies if it fails.
sub _once {
    my ($scfg, $storeid, @call) = @_;
    my ($result, $error) = _try($scfg, $storeid, @call);
    die "storage '$storeid': $error" if defined($error);
    return $result;
}

# The same, with an error as the second value.
sub _try {
    my ($scfg, $storeid, $name, $args, $limit, $log) = @_;
    my $bridge = PVE::BackupProvider::Plugin::Snapkeep::Bridge->new($scfg, $storeid, $log);
    my ($result, $error) = $bridge->attempt($name, $args, limit => $limit);
    # Who polls does not wait for a child that a dead file system holds.
    $bridge->finish(defined($limit) && $limit <= POLL_LIMIT ? POLL_PATIENCE : undef);
    return ($result, $error);
}

1;
