/* Where clients come from: TCP addresses and Unix sockets. */
#define _GNU_SOURCE /* accept4() */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "host/serve/http_parts.h"

#define BACKLOG 1024
#define ACCEPTS 64 /* in a turn */

/* ---- binding ---- */

static const char *unix_path(const char *host)
{
    if (strncmp(host, "unix:", 5) == 0)
        return host + 5;
    return *host == '/' ? host : NULL;
}

/* A socket that nobody listens to is left over from a process that is gone. */
static bool is_left_over(const struct sockaddr_un *address)
{
    struct stat about;
    if (lstat(address->sun_path, &about) != 0 || !S_ISSOCK(about.st_mode))
        return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    bool refused = connect(fd, (const struct sockaddr *)address, sizeof *address) != 0 && errno == ECONNREFUSED;
    close(fd);
    return refused;
}

static pl_status listen_unix(pl_http *http, const char *path, pl_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path || !*path)
        return pl_fail(err, PL_ERR_ARGUMENT, "'%s' cannot be the path of a Unix socket: 1 to %zu bytes", path,
                       sizeof address.sun_path - 1);
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    if (is_left_over(&address))
        unlink(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof address) != 0 || listen(fd, BACKLOG) != 0) {
        int why = errno;
        if (fd >= 0)
            close(fd);
        return pl_fail(err, PL_ERR_IO, "cannot listen on unix:%s: %s", path, strerror(why));
    }
    http->listeners[http->n_listeners++] = fd;
    snprintf(http->unix_path, sizeof http->unix_path, "%s", path);
    snprintf(http->address, sizeof http->address, "unix:%s", path);
    return PL_OK;
}

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
}

static void set_port(struct sockaddr *address, int32_t port)
{
    if (address->sa_family == AF_INET)
        ((struct sockaddr_in *)(void *)address)->sin_port = htons((uint16_t)port);
    else
        ((struct sockaddr_in6 *)(void *)address)->sin6_port = htons((uint16_t)port);
}

static int32_t port_of(int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address = {.v6 = {.sin6_family = AF_UNSPEC}};
    socklen_t n = sizeof address;
    if (getsockname(fd, &address.any, &n) != 0)
        return 0;
    return ntohs(address.any.sa_family == AF_INET ? address.v4.sin_port : address.v6.sin6_port);
}

/* -1 with errno */
static int bind_one(const struct addrinfo *info)
{
    int on = 1;
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (info->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

/* All addresses of a name, as far as this machine has them, on one port. */
static pl_status listen_tcp(pl_http *http, const char *host, int32_t port, pl_error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *list;
    int why = 0, failed = getaddrinfo(host, NULL, &hints, &list);
    if (failed)
        return pl_fail(err, PL_ERR_IO, "cannot listen on %s: %s", host, gai_strerror(failed));
    http->loopback = true;
    for (const struct addrinfo *info = list; info && http->n_listeners < PL_HTTP_LISTENERS; info = info->ai_next) {
        if (info->ai_family != AF_INET && info->ai_family != AF_INET6)
            continue;
        set_port(info->ai_addr, port);
        int fd = bind_one(info);
        if (fd < 0) {
            why = errno;
            if (why == EADDRNOTAVAIL || why == EAFNOSUPPORT)
                continue;
            break;
        }
        http->listeners[http->n_listeners++] = fd;
        http->loopback = http->loopback && is_loopback(info->ai_addr);
        port = port_of(fd);
        why = 0;
    }
    freeaddrinfo(list);
    if (http->n_listeners == 0 || (why && why != EADDRNOTAVAIL && why != EAFNOSUPPORT))
        return pl_fail(err, PL_ERR_IO, "cannot listen on %s port %d: %s", host, port, strerror(why));
    bool v6 = strchr(host, ':');
    snprintf(http->address, sizeof http->address, "http://%s%s%s:%d", v6 ? "[" : "", host, v6 ? "]" : "", port);
    return PL_OK;
}

pl_status pl_http_listen(pl_http *http, pl_error *err)
{
    if (!http->params.host) {
        http->loopback = true;
        return PL_OK;
    }
    const char *path = unix_path(http->params.host);
    if (path)
        return listen_unix(http, path, err);
    return listen_tcp(http, http->params.host, http->params.port, err);
}

void pl_http_unlisten(pl_http *http)
{
    for (int i = 0; i < http->n_listeners; i++)
        close(http->listeners[i]);
    http->n_listeners = 0;
    if (http->unix_path[0])
        unlink(http->unix_path);
    http->unix_path[0] = '\0';
}

/* ---- accepting ---- */

/* The peer as text, and a number for it, which for IPv6 is that of its network: hosts there have 2^64 addresses. */
static uint64_t describe_peer(const pl_http *http, int fd, const struct sockaddr_storage *address, char out[static 64])
{
    const void *bytes;
    size_t n;
    if (address->ss_family == AF_INET) {
        bytes = &((const struct sockaddr_in *)(const void *)address)->sin_addr;
        n = 4;
        inet_ntop(AF_INET, bytes, out, 64);
    } else if (address->ss_family == AF_INET6) {
        bytes = &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
        n = 8;
        inet_ntop(AF_INET6, bytes, out, 64);
    } else {
        struct ucred peer = {.pid = 0};
        socklen_t size = sizeof peer;
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);
        snprintf(out, 64, "uid %u", (unsigned)peer.uid);
        return pl_http_hash_of(http->keys.secret, out, strlen(out)).half[0];
    }
    return pl_http_hash_of(http->keys.secret, bytes, n).half[0];
}

/* Nothing may wait for acknowledgements, and a client whose machine is gone is not waited on for hours. */
static void set_tcp_options(int fd)
{
    int on = 1, idle = 30, interval = 10, count = 3;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
}

static void turn_away(pl_http *http, int fd)
{
    static const char text[] =
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
        "Content-Length: 101\r\nConnection: close\r\n\r\n"
        "{\"error\":{\"message\":\"Too many connections.\",\"type\":\"server_error\",\"param\":null,"
        "\"code\":\"overloaded\"}}\n";
    atomic_fetch_add(&http->n_refused, 1);
    if (send(fd, text, sizeof text - 1, MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
        shutdown(fd, SHUT_WR);
    recv(fd, http->scratch, 4096, MSG_DONTWAIT); /* what is not read turns the end into a reset */
    close(fd);
}

/* Without a descriptor for a client it would stay in the queue, and the loop would spin: the spare one lets it be closed. */
static void turn_away_without_descriptor(pl_http *http, int listener)
{
    close(http->spare);
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0)
        turn_away(http, fd);
    http->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

void pl_http_accept(pl_http *http, int listener)
{
    for (int i = 0; i < ACCEPTS; i++) {
        struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
        socklen_t n = sizeof address;
        int fd = accept4(listener, (struct sockaddr *)&address, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE)
                turn_away_without_descriptor(http, listener);
            if (errno != ECONNABORTED && errno != EINTR)
                return;
            continue;
        }
        if (atomic_load(&http->n_connections) >= http->params.max_connections) {
            turn_away(http, fd);
            continue;
        }
        char peer[64] = "";
        uint64_t hash = describe_peer(http, fd, &address, peer);
        if (address.ss_family != AF_UNIX)
            set_tcp_options(fd);
        pl_connection_open(http, fd, peer, hash);
    }
}
