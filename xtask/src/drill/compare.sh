# What came back is what was there; only the repository, the kit and the guide were used.
set -euo pipefail
cd empty
for disk in web/disk0.raw web-python.raw; do cmp "$disk" ../away/disk.raw; done
cmp web/guest.conf ../away/web.conf
for tree in box box-python; do
    diff -r --no-dereference "$tree" ../away/files
    test "$(stat -c %h "$tree/etc/motd")" = 2
    test "$(stat -c '%a %Y' "$tree/large")" = "$(stat -c '%a %Y' ../away/files/large)"
done
