# Sourced by tests/run: a PostgreSQL server for the tests, of version 15 or newer, with nothing installed in the system.
#
#   postgres_up      finds a server or unpacks one below .local, makes a database in a temporary folder, and starts it:
#                    FULMAR_POSTGRES_URL says where it is; FULMAR_POSTGRES_SERVER is a program that does `start`,
#                    `crash` (as kill -9 would), `stop`, `freeze` and `thaw` with it
#   postgres_up small  as before, with a tablespace `small` on a disk of its own of 24 MiB, at FULMAR_POSTGRES_SMALL. That
#                    needs root and the right to mount: `postgres_can_be_small` says whether they are there
#   postgres_down    stops it and removes the folder
#
#   postgres_up tls  as the first, with TLS, and the certificates at FULMAR_POSTGRES_TLS: ca.pem, its authority's, and
#                    other.pem, one that has nothing to do with it
#   pooler_up        brings up a PgBouncer in transaction mode before it: FULMAR_PGBOUNCER_URL
#
# It works for root, too: PostgreSQL refuses to run as root, so that it runs as `postgres` or `nobody`. It commits to the
# disk in earnest: durability is what is tested. Every failure says what was tried.

postgres_oldest=15
postgres_folder=

postgres_down() {
    [[ -n $postgres_folder ]] || return 0
    "$postgres_folder/server" stop >/dev/null 2>&1 || true
    ! mountpoint -q "$postgres_folder/small" || umount "$postgres_folder/small"
    rm -rf "$postgres_folder"
    postgres_folder=
}

postgres_can_be_small() {
    [[ $(id -u) == 0 ]] || return 1
    local folder result=1
    folder=$(mktemp -d)
    ! mount -t tmpfs -o size=1m tmpfs "$folder" 2>/dev/null || { result=0; umount "$folder"; }
    rmdir "$folder"
    return "$result"
}

postgres_up() {
    # Anybody may look in: the server's user has to. The data is the server's alone.
    postgres_folder=$(mktemp -d)
    chmod 755 "$postgres_folder"

    local as=() user bin
    if [[ $(id -u) == 0 ]]; then
        user=$(id -un postgres 2>/dev/null || echo nobody)
        as=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --clear-groups --)
    fi
    local library_path=
    if ! postgres_find; then
        postgres_unpack >"$postgres_folder/unpack.log" 2>&1 || {
            printf '    no PostgreSQL %s or newer was found, nor could one be had from the packages of Debian:\n' "$postgres_oldest"
            tail -n 20 "$postgres_folder/unpack.log" | sed 's/^/        /'
            return 1
        }
        postgres_find || { printf '    the PostgreSQL that was unpacked does not run\n'; return 1; }
    fi
    printf '    %s, in %s\n' "$("${as[@]}" env LD_LIBRARY_PATH="$library_path" "$bin/postgres" --version)" "$bin"

    local data=$postgres_folder/data password port
    password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    mkdir -m 700 "$data"
    printf '%s\n' "$password" >"$postgres_folder/password"
    [[ -z ${user:-} ]] || chown "$user" "$data" "$postgres_folder/password"
    (cd "$postgres_folder" && "${as[@]}" env LD_LIBRARY_PATH="$library_path" "$bin/initdb" --pgdata="$data" --username=fulmar \
        --pwfile="$postgres_folder/password" --auth=scram-sha-256 --encoding=UTF8 --locale=C >"$postgres_folder/initdb.log" 2>&1) || {
        printf '    initdb failed:\n'
        tail -n 20 "$postgres_folder/initdb.log" | sed 's/^/        /'
        return 1
    }

    # Made while no server runs, because no transaction may hold it.
    if [[ ${1:-} == small ]]; then
        mkdir "$postgres_folder/small"
        mount -t tmpfs -o size=24m tmpfs "$postgres_folder/small" || return 1
        mkdir -m 700 "$postgres_folder/small/tables"
        chown "$user" "$postgres_folder/small/tables"
        (cd "$postgres_folder" && "${as[@]}" env LD_LIBRARY_PATH="$library_path" "$bin/postgres" --single -D "$data" postgres \
            <<<"CREATE TABLESPACE small LOCATION '$postgres_folder/small/tables'" >"$postgres_folder/small.log" 2>&1) || {
            printf '    no tablespace could be made:\n'
            tail -n 20 "$postgres_folder/small.log" | sed 's/^/        /'
            return 1
        }
        export FULMAR_POSTGRES_SMALL=$postgres_folder/small
    fi

    local tls=
    if [[ ${1:-} == tls ]]; then
        postgres_certificates >"$postgres_folder/tls.log" 2>&1 || {
            printf '    openssl made no certificates:\n'
            tail -n 20 "$postgres_folder/tls.log" | sed 's/^/        /'
            return 1
        }
        export FULMAR_POSTGRES_TLS=$postgres_folder/tls
        tls="ssl = on
ssl_cert_file = 'server.pem'
ssl_key_file = 'server.key'"
    fi

    postgres_write_server
    local attempt
    for attempt in 1 2 3 4 5 6 7 8; do
        # Free or not shows when the server takes it; another program may take it first.
        port=$((20000 + RANDOM % 20000))
        cat >"$postgres_folder/settings" <<SETTINGS
listen_addresses = '127.0.0.1'
port = $port
unix_socket_directories = '$data'
max_connections = 200
fsync = on
full_page_writes = on
synchronous_commit = on
logging_collector = off
autovacuum_naptime = 1s
$tls
SETTINGS
        cat "$postgres_folder/settings" >>"$data/postgresql.conf"
        if "$postgres_folder/server" start; then
            export FULMAR_POSTGRES_URL=postgres://fulmar:$password@127.0.0.1:$port/postgres
            export FULMAR_POSTGRES_SERVER=$postgres_folder/server
            return 0
        fi
        grep -q 'Address already in use' "$data/log" || break
    done
    printf '    the server does not start:\n'
    tail -n 20 "$data/log" | sed 's/^/        /'
    return 1
}

# Sets `bin`, and `library_path` for what was unpacked: the newest server that the user can run.
postgres_find() {
    local unpacked=${FULMAR_TOOLS:-$PWD/.local}/postgres candidate version best=0
    for candidate in "$(dirname "$(command -v postgres 2>/dev/null || echo /nowhere/x)")" /usr/lib/postgresql/*/bin \
        /usr/pgsql-*/bin "$unpacked"/usr/lib/postgresql/*/bin; do
        [[ -x $candidate/postgres && -x $candidate/initdb ]] || continue
        local libraries=
        if [[ $candidate == "$unpacked"/* ]]; then
            # The user of the server may have no way into the folder of this repository.
            [[ ${#as[@]} == 0 ]] || "${as[@]}" test -x "$candidate/postgres" || {
                cp -r "$unpacked/usr" "$postgres_folder/usr"
                chmod -R a+rX "$postgres_folder/usr"
                candidate=$postgres_folder${candidate#"$unpacked"}
            }
            libraries=$(find "${candidate%/lib/postgresql/*}/lib" -name '*.so*' -printf '%h\n' | sort -u | paste -sd :)
        fi
        version=$(cd / && "${as[@]}" env LD_LIBRARY_PATH="$libraries" "$candidate/postgres" --version 2>/dev/null) || continue
        version=$(sed -E 's/[^0-9]*([0-9]+).*/\1/' <<<"$version")
        if ((version >= postgres_oldest && version > best)); then
            best=$version bin=$candidate library_path=$libraries
        fi
    done
    ((best > 0))
}

# Debian's packages, unpacked and not installed, with those of their libraries that the system lacks.
postgres_unpack() {
    local home=${FULMAR_TOOLS:-$PWD/.local}/postgres package
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || {
        echo 'apt-get and dpkg are not here: install PostgreSQL, with its programs `postgres` and `initdb` in PATH'
        return 1
    }
    rm -rf "$home"
    mkdir -p "$home"/apt/{lists,archives}/partial
    local apt=(-o "Dir::State::Lists=$home/apt/lists" -o "Dir::Cache=$home/apt" -o Debug::NoLocking=1
        -o "APT::Sandbox::User=$(id -un)" -o Acquire::Languages=none)
    apt-get "${apt[@]}" -q update || return 1
    package=$(apt-cache "${apt[@]}" pkgnames postgresql- | grep -E '^postgresql-[0-9]+$' | sort -t - -k 2 -n | tail -n 1)
    [[ -n $package ]] || { echo 'no package postgresql-NN is known'; return 1; }
    apt-get "${apt[@]}" -q --yes --no-install-recommends --download-only install "$package" || return 1
    # What is installed, and could not be found, is not downloaded by `install`.
    [[ -n $(find "$home/apt/archives" -name "${package}_*.deb") ]] || (cd "$home/apt/archives" && apt-get "${apt[@]}" -q download "$package") || return 1
    local file
    for file in "$home"/apt/archives/*.deb; do
        dpkg -x "$file" "$home" || return 1
    done
    rm -rf "$home/apt"
}

# An authority, the server's certificate by it, and an authority of somebody else.
postgres_certificates() (
    set -e
    mkdir "$postgres_folder/tls"
    cd "$postgres_folder/tls"
    local name
    for name in ca other; do
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=$name of fulmar's tests" -keyout "$name.key" -out "$name.pem"
    done
    openssl req -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -keyout server.key -out server.csr
    printf 'subjectAltName = IP:127.0.0.1\n' >extensions
    openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out server.pem
    cp server.pem server.key "$data"
    chmod 600 "$data/server.key"
    [[ -z ${user:-} ]] || chown "$user" "$data/server.pem" "$data/server.key"
    chmod -R a+rX .
)

# The program that faults are made with. It knows everything, so that a test needs one path.
postgres_write_server() {
    cat >"$postgres_folder/server" <<SERVER
#!/usr/bin/env bash
set -u
cd '$postgres_folder'
as=(${as[*]})
data='$data'
export LD_LIBRARY_PATH='$library_path'
SERVER
    cat >>"$postgres_folder/server" <<'SERVER'
pid() { head -n 1 "$data/postmaster.pid" 2>/dev/null; }
# The server's own processes are children of the first one.
family() { echo "$(pid) $(pgrep -P "$(pid)" | tr '\n' ' ')"; }
ctl() { "${as[@]}" "$bin/pg_ctl" --pgdata="$data" --wait --timeout=60 "$@"; }

# Of this server, which from then on commits nothing that the standby lacks. Says its port.
standby() {
    local primary port tools
    primary=$(sed -n 4p "$data/postmaster.pid")
    # In the folder of the real `pg_ctl`, if that one is a link.
    tools=$(dirname "$(readlink -f "$bin/pg_ctl")")
    mkdir -m 700 standby && chown --reference="$data" standby || return 1
    PGPASSWORD=$(<password) "${as[@]}" "$tools/pg_basebackup" --host=127.0.0.1 --port="$primary" --username=fulmar \
        --pgdata="$PWD/standby" --write-recovery-conf --checkpoint=fast >&2 || return 1
    for port in $(seq $((primary + 1)) $((primary + 8))); do
        if data=$PWD/standby ctl --log="$PWD/standby/log" -o "-p $port" start >/dev/null; then
            echo "synchronous_standby_names = '*'" >>"$data/postgresql.conf"
            ctl reload >/dev/null && echo "$port"
            return
        fi
    done
    return 1
}

# Takes the standby away, and leaves its server to itself, stopped or not.
standby_down() {
    [[ -d standby ]] || return 0
    data=$PWD/standby ctl --mode=immediate stop >/dev/null
    rm -rf standby
    sed -i '/^synchronous_standby_names/d' "$data/postgresql.conf"
    ctl reload >/dev/null 2>&1 || true
}

case $1 in
    start) ctl --log="$data/log" start >/dev/null ;;
    stop) standby_down; ctl --mode=fast stop >/dev/null ;;
    standby) standby ;;
    promote) data=$PWD/standby ctl promote >/dev/null ;;
    standby_down) standby_down ;;
    crash) ctl --mode=immediate stop >/dev/null ;;
    freeze) kill -STOP $(family) ;;
    thaw) kill -CONT $(family) ;;
    *) echo "server start|stop|crash|freeze|thaw|standby|promote|standby_down" >&2; exit 2 ;;
esac
SERVER
    sed -i "s|^data=|bin='$bin'\ndata=|" "$postgres_folder/server"
    chmod 755 "$postgres_folder/server"
}

# pooler_up: a PgBouncer in transaction mode before that server, with fewer sessions than clients: FULMAR_PGBOUNCER_URL. It
# comes from the distribution, installed by root.
pooler_up() {
    local bouncer as=() place server_port password port user
    bouncer=$(command -v pgbouncer || echo /usr/sbin/pgbouncer)
    if [[ ! -x $bouncer ]]; then
        { [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; } || {
            echo '    needs pgbouncer and psql, and there are none: install them, or run this as root on Debian'
            return 1
        }
        apt-get -q update >"$postgres_folder/apt.log" 2>&1 || true
        apt-get -q --yes --no-install-recommends install pgbouncer postgresql-client >>"$postgres_folder/apt.log" 2>&1 || {
            tail -n 20 "$postgres_folder/apt.log" | sed 's/^/        /'
            return 1
        }
    fi
    printf '    %s\n' "$("$bouncer" --version | head -n 1)"
    if [[ $(id -u) == 0 ]]; then
        user=$(id -un postgres 2>/dev/null || echo nobody)
        as=(setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups --)
    fi
    # postgres://fulmar:PASSWORD@127.0.0.1:PORT/postgres
    place=${FULMAR_POSTGRES_URL##*@} server_port=${place##*:} server_port=${server_port%%/*} password=${FULMAR_POSTGRES_URL#*fulmar:} password=${password%%@*}
    mkdir -p "$postgres_folder/pooler"
    printf '"fulmar" "%s"\n' "$password" >"$postgres_folder/pooler/users"
    local attempt
    for attempt in 1 2 3 4 5 6 7 8; do
        port=$((20000 + RANDOM % 20000))
        cat >"$postgres_folder/pooler/ini" <<SETTINGS
[databases]
postgres = host=127.0.0.1 port=$server_port
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $port
unix_socket_dir =
auth_type = plain
auth_file = $postgres_folder/pooler/users
pool_mode = transaction
default_pool_size = 4
logfile = $postgres_folder/pooler/log
SETTINGS
        [[ -z ${user:-} ]] || chown -R "$user" "$postgres_folder/pooler"
        "${as[@]}" "$bouncer" "$postgres_folder/pooler/ini" >"$postgres_folder/pooler/out" 2>&1 &
        pooler_process=$!
        local look
        for look in $(seq 100); do
            if (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null && kill -0 "$pooler_process" 2>/dev/null; then
                export FULMAR_PGBOUNCER_URL=postgres://fulmar:$password@127.0.0.1:$port/postgres
                return 0
            fi
            kill -0 "$pooler_process" 2>/dev/null || break
            sleep 0.1
        done
        kill "$pooler_process" 2>/dev/null || true
    done
    printf '    PgBouncer does not start:\n'
    tail -n 20 "$postgres_folder/pooler/out" | sed 's/^/        /'
    return 1
}

pooler_down() {
    [[ -z ${pooler_process:-} ]] || kill "$pooler_process" 2>/dev/null || true
}
