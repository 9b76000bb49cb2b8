# What came back is what was there; only the repository, the kit and the guide were used.
set -euo pipefail
for disk in */web/disk0.raw empty/web-python.raw; do cmp "$disk" away/disk.raw; done
for conf in */web/guest.conf; do cmp "$conf" away/web.conf; done
for tree in */box empty/box-python; do
    diff -r --no-dereference "$tree" away/files
    test "$(stat -c %h "$tree/etc/motd")" = 2
    test "$(stat -c '%a %Y' "$tree/large")" = "$(stat -c '%a %Y' away/files/large)"
done
