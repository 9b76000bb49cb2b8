package Flows;

# The calls of each caller, in its order and with its arguments: jobs, restores and the storage's, in both dialects.

use strict;
use warnings;

use Exporter qw(import);

our @EXPORT_OK = qw(flows run_step storage_calls whole_flow);

# A step: {sub, call (of the program), dies (whether a failure of the call is one of the sub), about (what an error
# names), do (a sub of the context), alone (the next step does it too)}. A context has {provider, time, vmid, ctid, config, vm_info, ct_info, volumes,
# handles, devices (with sizes), device, log, vm_volname, ct_volname, storeid, in_container}.
sub step {
    my ($sub, $call, $about, $do) = @_;
    my $dies = $sub !~ m/\A(?:job_cleanup|backup_cleanup failed|backup_handle_log_file|restore_\w+(?<!volume)_cleanup|job_hook (?:end|abort)|backup_hook abort)\z/;
    return { sub => $sub, call => $call, about => $about, dies => $dies, do => $do };
}

sub run_step { my ($step, $context) = @_; return $step->{do}->($context); }

# All steps of a flow, which backs a guest up; the volume name of its archive.
sub whole_flow {
    my ($name, $context) = @_;
    my ($flow) = grep { $_->[0] eq $name } flows();
    my (undef, @steps) = @$flow;
    run_step($_, $context) for @steps;
    return "backup/$context->{name}";
}

# [NAME, STEP …] of each. The steps of one are made on one provider object.
sub flows {
    my $guest = qr/\Aguest 100: /;
    my $container = qr/\Aguest 101: /;
    my $job_init = step('job_init', 'job_init', qr/\A/, sub { $_[0]->{provider}->job_init($_[0]->{time}) });
    my $job_cleanup = step('job_cleanup', 'job_cleanup', qr/\A/, sub { $_[0]->{provider}->job_cleanup() });
    my @begin = (
        $job_init,
        step('backup_init', 'backup_init', $guest, sub {
            $_[0]->{name} = $_[0]->{provider}->backup_init($_[0]->{vmid}, 'qemu', $_[0]->{time})->{'archive-name'};
        }),
        step('backup_get_mechanism', 'backup_get_mechanism', $guest, sub {
            $_[0]->{mechanism} = $_[0]->{provider}->backup_get_mechanism($_[0]->{vmid}, 'qemu');
        }),
        step('backup_vm_query_incremental', 'backup_vm_query_incremental', $guest, sub {
            $_[0]->{modes} = $_[0]->{provider}->backup_vm_query_incremental($_[0]->{vmid}, $_[0]->{devices});
        }),
    );
    my $backup_vm = step('backup_vm', 'backup_vm', $guest, sub {
        $_[0]->{provider}->backup_vm($_[0]->{vmid}, $_[0]->{config}, $_[0]->{volumes}->($_[0]), $_[0]->{vm_info});
    });
    my $by_handle = sub {
        $_[0]->{provider}->backup_vm($_[0]->{vmid}, $_[0]->{config}, $_[0]->{handles}->($_[0]), $_[0]->{vm_info});
    };
    my @end = (
        step('backup_cleanup', 'backup_cleanup', $guest, sub {
            $_[0]->{stats} = $_[0]->{provider}->backup_cleanup($_[0]->{vmid}, 'qemu', 1, {});
        }),
        step('backup_handle_log_file', 'backup_handle_log_file', $guest, sub {
            $_[0]->{provider}->backup_handle_log_file($_[0]->{vmid}, $_[0]->{log});
        }),
        $job_cleanup,
    );
    my $failed = step('backup_cleanup failed', 'backup_cleanup', $guest, sub {
        $_[0]->{provider}->backup_cleanup($_[0]->{vmid}, 'qemu', 0, { error => "it failed\n" });
    });
    my @begin_container = (
        $job_init,
        step('backup_init', 'backup_init', $container, sub {
            $_[0]->{name} = $_[0]->{provider}->backup_init($_[0]->{ctid}, 'lxc', $_[0]->{time})->{'archive-name'};
        }),
        step('backup_get_mechanism', 'backup_get_mechanism', $container, sub {
            $_[0]->{mechanism} = $_[0]->{provider}->backup_get_mechanism($_[0]->{ctid}, 'lxc');
        }),
    );
    my $prepare = step('backup_container_prepare', 'backup_container_prepare', $container, sub {
        $_[0]->{provider}->backup_container_prepare($_[0]->{ctid}, $_[0]->{ct_info});
    });
    my $walk = sub {
        $_[0]->{provider}->backup_container($_[0]->{ctid}, $_[0]->{config}, ['/tmp/?*'], $_[0]->{ct_info});
    };
    my @end_container = (
        step('backup_cleanup', 'backup_cleanup', $container, sub {
            $_[0]->{stats} = $_[0]->{provider}->backup_cleanup($_[0]->{ctid}, 'lxc', 1, {});
        }),
        step('backup_handle_log_file', 'backup_handle_log_file', $container, sub {
            $_[0]->{provider}->backup_handle_log_file($_[0]->{ctid}, $_[0]->{log});
        }),
        $job_cleanup,
    );
    return (
        ['machine by nbd', @begin, $backup_vm, @end],
        ['machine by file-handle', @begin,
            { step('backup_vm regions', 'backup_vm_regions', $guest, $by_handle)->%*, alone => 1 },
            step('backup_vm', 'backup_vm', $guest, $by_handle), @end],
        ['machine that fails', @begin, $failed,
            step('backup_handle_log_file', 'backup_handle_log_file', $guest, $end[1]->{do}), $job_cleanup],
        ['container in its user namespace', @begin_container, $prepare,
            step('backup_container', 'backup_container', $container, sub { $_[0]->{in_container}->($walk, $_[0]) }),
            @end_container],
        ['container in the task', @begin_container, $prepare,
            step('backup_container', 'backup_container', $container, $walk), @end_container],
        version_five($guest, $container, $walk),
        restores(),
    );
}

sub version_five {
    my ($guest, $container, $walk) = @_;
    my $start = step('job_hook start', 'job_init', qr/\A/, sub {
        $_[0]->{provider}->job_hook('start', { 'start-time' => $_[0]->{time} });
    });
    return (
        ['machine by version 5', $start,
            step('backup_get_archive_name', 'backup_init', $guest, sub {
                $_[0]->{name} = $_[0]->{provider}->backup_get_archive_name($_[0]->{vmid}, 'qemu', $_[0]->{time});
            }),
            step('backup_get_mechanism', 'backup_get_mechanism', $guest, sub {
                my ($mechanism, $bitmap) = $_[0]->{provider}->backup_get_mechanism($_[0]->{vmid}, 'qemu');
            }),
            step('backup_vm', 'backup_vm', $guest, sub {
                $_[0]->{provider}->backup_vm($_[0]->{vmid}, $_[0]->{config}, $_[0]->{volumes}->($_[0]), $_[0]->{vm_info});
                delete $_[0]->{provider}->{sizes};
            }),
            step('backup_get_task_size', 'backup_cleanup', $guest, sub {
                $_[0]->{provider}->backup_get_task_size($_[0]->{vmid});
            }),
            step('job_hook end', 'job_cleanup', qr/\A/, sub { $_[0]->{provider}->job_hook('end', {}) })],
        ['container by version 5', $start,
            step('backup_hook start', 'backup_init', $container, sub {
                $_[0]->{provider}->backup_hook('start', $_[0]->{ctid}, 'lxc', { 'start-time' => $_[0]->{time} });
                $_[0]->{name} = $_[0]->{provider}->backup_get_archive_name($_[0]->{ctid}, 'lxc', $_[0]->{time});
            }),
            step('backup_hook prepare', 'backup_container_prepare', $container, sub {
                $_[0]->{provider}->backup_hook('prepare', $_[0]->{ctid}, 'lxc', $_[0]->{ct_info});
            }),
            step('backup_container', 'backup_container', $container, $walk),
            step('backup_hook end', 'backup_cleanup', $container, sub {
                $_[0]->{provider}->backup_hook('end', $_[0]->{ctid}, 'lxc', {});
            }),
            step('job_hook end', 'job_cleanup', qr/\A/, sub { $_[0]->{provider}->job_hook('end', {}) })],
        ['machine that fails by version 5', $start,
            step('backup_hook start', 'backup_init', $guest, sub {
                $_[0]->{provider}->backup_hook('start', $_[0]->{vmid}, 'qemu', { 'start-time' => $_[0]->{time} });
            }),
            step('backup_hook abort', 'backup_cleanup', $guest, sub {
                $_[0]->{provider}->backup_hook('abort', $_[0]->{vmid}, undef, { error => "it failed\n" });
            }),
            step('job_hook abort', 'job_cleanup', qr/\A/, sub {
                $_[0]->{provider}->job_hook('abort', { error => "it failed\n" });
            })],
    );
}

# As qemu-server calls it, without the storage ID, and as pve-container and version 5 do, with it.
sub restores {
    my $archive = qr!\Abackup/vzdump-(?:qemu|lxc)-[0-9A-Za-z_-]+: !;
    my $of = sub {
        my ($sub, $kind, @more) = @_;
        my $call = $sub =~ s/\Arestore_(get_(?:guest|firewall)_config)\z/archive_$1/r;
        return step($sub, $call, $archive, sub {
            my ($context) = @_;
            my @arguments = map { ref($_) eq 'CODE' ? $_->($context) : $_ } @more;
            $context->{told}->{$sub} = [$context->{provider}->$sub($context->{"${kind}_volname"}, @arguments)];
        });
    };
    my $storeid = sub { $_[0]->{storeid} };
    my $device = sub { $_[0]->{device} };
    return (
        ["restore of a machine",
            $of->('archive_get_guest_config', 'vm', $storeid), $of->('restore_get_mechanism', 'vm'),
            $of->('restore_vm_init', 'vm'), $of->('archive_get_firewall_config', 'vm'),
            $of->('restore_vm_volume_init', 'vm', $device, {}), $of->('restore_vm_volume_cleanup', 'vm', $device, {}),
            $of->('restore_vm_cleanup', 'vm')],
        ["restore of a machine by version 5",
            $of->('restore_get_guest_config', 'vm', $storeid), $of->('restore_get_firewall_config', 'vm', $storeid),
            $of->('restore_get_mechanism', 'vm', $storeid), $of->('restore_vm_init', 'vm', $storeid),
            $of->('restore_vm_volume_init', 'vm', $storeid, $device, {}),
            $of->('restore_vm_volume_cleanup', 'vm', $storeid, $device, {}), $of->('restore_vm_cleanup', 'vm', $storeid)],
        ["restore of a container",
            $of->('archive_get_guest_config', 'ct', $storeid), $of->('restore_get_mechanism', 'ct', $storeid),
            $of->('restore_container_init', 'ct', $storeid, {}), $of->('restore_container_cleanup', 'ct', $storeid, {}),
            $of->('archive_get_firewall_config', 'ct', $storeid)],
        ["restore of a container without the storage's ID",
            $of->('restore_get_mechanism', 'ct'), $of->('restore_container_init', 'ct', {}),
            $of->('restore_container_cleanup', 'ct', {})],
    );
}

# The storage's calls, each by itself: {plugin, scfg, storeid, volname, new_scfg}.
sub storage_calls {
    my $store = qr/\Astorage '\w+': /;
    my $archive = qr/\Astorage '\w+': vzdump-/;
    my $of = sub { my ($sub, $call, $about, $do) = @_; return ['storage', step($sub, $call, $about, $do)]; };
    return (
        $of->('on_add_hook', 'storage_check', $store, sub {
            $_[0]->{plugin}->on_add_hook($_[0]->{storeid}, { $_[0]->{scfg}->%* });
        }),
        $of->('on_add_hook creating', 'storage_create', $store, sub {
            my $scfg = { $_[0]->{new_scfg}->(), 'snapkeep-create' => 1 };
            local ($!, *STDOUT);
            open(STDOUT, '>', '/dev/null') or die $!;
            $_[0]->{plugin}->on_add_hook('new', $scfg, 'snapkeep-key' => $_[0]->{key});
        }),
        $of->('on_update_hook_full', 'storage_check', $store, sub {
            $_[0]->{plugin}->on_update_hook_full($_[0]->{storeid}, $_[0]->{scfg}, {}, undef, { 'snapkeep-key' => $_[0]->{key} });
        }),
        $of->('activate_storage', 'storage_status', $store, sub {
            $_[0]->{plugin}->activate_storage($_[0]->{storeid}, $_[0]->{scfg}, {});
        }),
        $of->('status', 'storage_status', $store, sub { $_[0]->{plugin}->status($_[0]->{storeid}, $_[0]->{scfg}, {}) }),
        $of->('get_identity', 'storage_check', $store, sub { $_[0]->{plugin}->get_identity($_[0]->{scfg}, $_[0]->{storeid}) }),
        $of->('list_volumes', 'storage_list', $store, sub {
            $_[0]->{plugin}->list_volumes($_[0]->{storeid}, $_[0]->{scfg}, undef, ['backup']);
        }),
        $of->('volume_size_info', 'storage_get', $archive, sub {
            $_[0]->{plugin}->volume_size_info($_[0]->{scfg}, $_[0]->{storeid}, $_[0]->{volname}->(), undef);
        }),
        $of->('get_volume_attribute', 'storage_get', $archive, sub {
            $_[0]->{plugin}->get_volume_attribute($_[0]->{scfg}, $_[0]->{storeid}, $_[0]->{volname}->(), 'notes');
        }),
        $of->('update_volume_attribute notes', 'storage_set_notes', $archive, sub {
            $_[0]->{plugin}->update_volume_attribute($_[0]->{scfg}, $_[0]->{storeid}, $_[0]->{volname}->(), 'notes', 'n');
        }),
        $of->('update_volume_attribute protected', 'storage_set_protected', $archive, sub {
            $_[0]->{plugin}->update_volume_attribute($_[0]->{scfg}, $_[0]->{storeid}, $_[0]->{volname}->(), 'protected', 0);
        }),
        $of->('prune_backups', 'storage_list', $store, sub {
            $_[0]->{plugin}->prune_backups($_[0]->{scfg}, $_[0]->{storeid}, { 'keep-last' => 2 }, undef, undef, 1);
        }),
        $of->('free_image', 'storage_free', $archive, sub {
            $_[0]->{plugin}->free_image($_[0]->{storeid}, $_[0]->{scfg}, $_[0]->{freed}->(), 0);
        }),
    );
}

1;
