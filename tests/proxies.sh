# Sourced by tests/run: proxies for the tests, as companies have them. Squid speaks HTTP, at a port that is open to all and at
# one that wants a user and a password; microsocks speaks SOCKS 5, in both ways. Both are from the distribution.
#
#   proxies_up      starts them: FULMAR_PROXY, FULMAR_PROXY_CLOSED, FULMAR_SOCKS and FULMAR_SOCKS_CLOSED say where, each as
#                   host:port. The user is `us er`, the password `p@ss:w/rd`. Squid lets nobody connect to port 81
#   proxies_down    stops them

proxies_folder=
proxies_started=()

proxies_down() {
    [[ -n $proxies_folder ]] || return 0
    ((${#proxies_started[@]} == 0)) || kill "${proxies_started[@]}" 2>/dev/null || true
    wait "${proxies_started[@]}" 2>/dev/null || true
    rm -rf "$proxies_folder"
    proxies_folder=
}

proxies_up() {
    local tool
    for tool in squid microsocks curl openssl; do
        # Squid is where users have no path to.
        PATH=$PATH:/usr/sbin command -v "$tool" >/dev/null || proxies_install "$tool" || return 1
    done
    proxies_folder=$(mktemp -d)
    chmod 755 "$proxies_folder"
    local open closed socks socks_closed
    open=$(free_port) closed=$(free_port) socks=$(free_port) socks_closed=$(free_port)
    printf 'us er:%s\n' "$(openssl passwd -apr1 'p@ss:w/rd')" >"$proxies_folder/users"
    cat >"$proxies_folder/squid.conf" <<CONF
http_port 127.0.0.1:$open name=open
http_port 127.0.0.1:$closed name=closed
pid_filename none
cache_log $proxies_folder/squid.log
access_log none
cache deny all
memory_cache_shared off
shutdown_lifetime 0 seconds
visible_hostname proxy.test
auth_param basic program $(ls /usr/lib*/squid/basic_ncsa_auth | head -n 1) $proxies_folder/users
acl open myportname open
acl known proxy_auth REQUIRED
acl forbidden port 81
http_access deny forbidden
http_access allow open
http_access allow known
http_access deny all
CONF
    if [[ $(id -u) == 0 ]]; then
        printf 'cache_effective_user nobody\n' >>"$proxies_folder/squid.conf"
        chown -R nobody "$proxies_folder"
    fi
    PATH=$PATH:/usr/sbin squid -N -n "fulmar$$" -f "$proxies_folder/squid.conf" >"$proxies_folder/out" 2>&1 &
    proxies_started+=($!)
    microsocks -i 127.0.0.1 -p "$socks" >/dev/null 2>&1 &
    proxies_started+=($!)
    microsocks -i 127.0.0.1 -p "$socks_closed" -u 'us er' -P 'p@ss:w/rd' >/dev/null 2>&1 &
    proxies_started+=($!)
    local port
    for port in "$open" "$closed" "$socks" "$socks_closed"; do
        listens_soon "$port" || {
            printf '    no proxy listens at port %s:\n' "$port"
            tail -n 20 "$proxies_folder/out" "$proxies_folder/squid.log" 2>/dev/null | sed 's/^/        /'
            return 1
        }
    done
    export FULMAR_PROXY=127.0.0.1:$open FULMAR_PROXY_CLOSED=127.0.0.1:$closed
    export FULMAR_SOCKS=127.0.0.1:$socks FULMAR_SOCKS_CLOSED=127.0.0.1:$socks_closed
}

proxies_install() {
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
        # Not as a service: it is started here.
        { apt-get update && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$1"; } \
            >/dev/null 2>&1 && return 0
    fi
    printf '    needs %s, and there is none: install it\n' "$1"
    return 1
}

free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 10000))
        listens "$port" || { printf '%s\n' "$port"; return; }
    done
}

listens() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

listens_soon() {
    local look
    for look in {1..100}; do
        ! listens "$1" || return 0
        sleep 0.1
    done
    return 1
}
