package PVE::BackupProvider::Plugin::Snapkeep::Walker;

# `snapkeep walk`, which reads a container's tree for the child at the other end of its standard input.

use strict;
use warnings;

use PVE::BackupProvider::Plugin::Snapkeep::Clean;
use PVE::BackupProvider::Plugin::Snapkeep::Process;

# So much of what a walker writes to its standard error is kept, in bytes.
use constant WORDS_MAX => 4096;

# The walker's standard error is a pipe: its end shows that the walker is gone.
sub start {
    my ($class, $program, $socket) = @_;
    pipe(my $read, my $write) or die "cannot make a pipe: $!\n";
    my $pid = PVE::BackupProvider::Plugin::Snapkeep::Process::start($program, 'walk', $socket, stderr => $write);
    close($write);
    return bless({ pid => $pid, socket => $socket, pipe => $read, words => '' }, $class);
}

# For `Bridge::attempt`. Other processes hold copies of the walker's socket, so the child sees its end only by
# a shutdown.
sub watch {
    my ($self) = @_;
    my $ready = sub {
        my $count = sysread($self->{pipe}, my $read, WORDS_MAX);
        return 1 if !defined($count) && $!{EINTR};
        if (!$count) {
            shutdown($self->{socket}, 2);
            return 0;
        }
        $self->{words} .= $read if length($self->{words}) < WORDS_MAX;
        return 1;
    };
    return { handle => $self->{pipe}, ready => $ready };
}

# Waits for its end; returns what it wrote.
sub finish {
    my ($self) = @_;
    my $pid = delete $self->{pid};
    return '' if !defined($pid);
    shutdown($self->{socket}, 2);
    PVE::BackupProvider::Plugin::Snapkeep::Process::end($pid);
    my $words = PVE::BackupProvider::Plugin::Snapkeep::Clean::printable($self->{words});
    $words =~ s/\s+\z//;
    return $words;
}

# When a signal handler dies in the middle.
sub DESTROY {
    my ($self) = @_;
    local ($@, $!, $?);
    eval { $self->finish() };
    return;
}

1;
