package Bench;

# What the tests share: a folder of their own, a storage on the fake program, and what it was told.

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter qw(import);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use JSON;

use PVE::Storage;
use PVE::Storage::Custom::SnapkeepPlugin;

our @EXPORT = qw(ARCHIVE STOREID calls calls_of folder provider scfg script told_logs untainted);

use constant STOREID => 'store';
use constant ARCHIVE => 'vzdump-qemu-100-2026-01-02T03_04_05Z-0123456789abcdef';

$ENV{PATH} = '/usr/sbin:/usr/bin:/sbin:/bin';
delete @ENV{qw(IFS CDPATH ENV BASH_ENV)};

my $owner = $$;
my $folder = untainted(tempdir('snapkeep-perl-XXXXXXXX', TMPDIR => 1, CLEANUP => 0));
chmod(0755, $folder);
mkdir("$folder/secrets");
$PVE::BackupProvider::Plugin::Snapkeep::Settings::secrets_folder = "$folder/secrets";
$PVE::BackupProvider::Plugin::Snapkeep::Settings::memory_folder = "$folder/memory";
my @logs;

# Nothing may wait for ever; what was started is ended then, too.
$SIG{ALRM} = sub { print STDERR "this test takes too long\n"; exit(1) };
alarm(300);

END {
    if ($$ == $owner && defined($folder)) {
        my $status = $?;
        system('rm', '-rf', $folder);
        $? = $status;
    }
}

sub untainted { my ($value) = @_; my ($clean) = $value =~ m/\A(.*)\z/s; return $clean; }

sub folder { return $folder; }

sub scfg {
    my $program = untainted(abs_path(dirname(__FILE__)) . '/fake-snapkeep');
    return { type => 'snapkeep', 'snapkeep-repository' => $folder, 'snapkeep-program' => $program, @_ };
}

sub provider {
    my $log = sub { my ($level, $message) = @_; push @logs, "$level: $message"; };
    return PVE::Storage::Custom::SnapkeepPlugin->new_backup_provider(scfg(@_), STOREID, $log);
}

# What was logged since the last call of this.
sub told_logs { my @told = @logs; @logs = (); return @told; }

# What the program shall do: see there.
sub script {
    my (%script) = @_;
    open(my $file, '>', "$folder/script.new") or die $!;
    print $file JSON->new->utf8->encode(\%script);
    close($file);
    rename("$folder/script.new", "$folder/script");
    return;
}

# What the program was told since the last call of this.
sub calls {
    open(my $file, '<', "$folder/calls") or return ();
    my @calls = map { JSON->new->utf8->decode($_) } <$file>;
    close($file);
    unlink("$folder/calls");
    return @calls;
}

# The names of these, without greetings and ends.
sub calls_of { return join(' ', grep { $_ !~ m/\A(?:hello|end)\z/ } map { $_->{call} } @_); }

1;
