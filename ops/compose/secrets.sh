#!/bin/sh
# Makes the secrets of ops/compose.yaml that aren't there yet, in ops/secrets. Containers run as users of their own and have to
# read them, so the files are readable; the folder is closed to everybody else on this machine.
set -eu
umask 077
folder="$(cd "$(dirname "$0")/.." && pwd)/secrets"
mkdir -p "$folder"
for name in mongodb_key mongodb_root_password mongodb_memcell_password redis_password \
    memcell_admin_token memcell_metrics_token grafana_admin_password; do
    if [ ! -s "$folder/$name" ]; then
        # Letters and digits only: nothing has to be encoded in a URI or quoted in a file.
        od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$folder/$name.new"
        chmod 0444 "$folder/$name.new"
        mv "$folder/$name.new" "$folder/$name"
        echo "made $folder/$name"
    fi
done
