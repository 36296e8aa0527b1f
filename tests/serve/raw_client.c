#include "tests/serve/raw_client.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static int connect_unix(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strncpy(to.sun_path, path, sizeof to.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof to), 0, "connect %s: %s", path, strerror(errno));
    return fd;
}

int raw_connect(const char *address)
{
    struct timeval limit = {.tv_sec = RAW_PATIENCE_S};
    int fd;
    if (strncmp(address, "unix:", 5) == 0) {
        fd = connect_unix(address + 5);
    } else {
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        to.sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1));
        fd = socket(AF_INET, SOCK_STREAM, 0);
        cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof to), 0, "connect %s: %s", address, strerror(errno));
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    return fd;
}

int raw_send_bytes(int fd, const void *bytes, size_t n)
{
    const char *p = bytes;
    while (n > 0) {
        ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);
        if (sent <= 0)
            return -1;
        p += sent;
        n -= (size_t)sent;
    }
    return 0;
}

int raw_send(int fd, const char *text)
{
    return raw_send_bytes(fd, text, strlen(text));
}

/* False at the end of the connection. */
static bool read_byte(int fd, char *out)
{
    ssize_t n = recv(fd, out, 1, 0);
    cr_assert(n >= 0 || errno == ECONNRESET, "no response within %d s: %s", RAW_PATIENCE_S, strerror(errno));
    return n == 1;
}

static bool read_bytes(int fd, pl_strbuf *out, size_t n)
{
    char buffer[4096];
    while (n > 0) {
        ssize_t got = recv(fd, buffer, n < sizeof buffer ? n : sizeof buffer, 0);
        cr_assert(got >= 0 || errno == ECONNRESET, "no response within %d s: %s", RAW_PATIENCE_S, strerror(errno));
        if (got <= 0)
            return false;
        pl_strbuf_add(out, buffer, (size_t)got);
        n -= (size_t)got;
    }
    return true;
}

static bool read_line(int fd, char *line, size_t room)
{
    size_t n = 0;
    while (n + 1 < room && read_byte(fd, &line[n]))
        if (line[n++] == '\n')
            break;
    line[n] = '\0';
    return n > 0 && line[n - 1] == '\n';
}

static bool read_chunks(int fd, pl_strbuf *out)
{
    char line[64], end[2];
    for (;;) {
        if (!read_line(fd, line, sizeof line))
            return false;
        size_t n = strtoul(line, NULL, 16);
        pl_strbuf rest = {.data = NULL};
        bool ok = read_bytes(fd, out, n) && read_bytes(fd, &rest, 2);
        memcpy(end, ok ? rest.data : "", ok ? 2 : 1);
        pl_strbuf_free(&rest);
        if (!ok || memcmp(end, "\r\n", 2) != 0)
            return false;
        if (n == 0)
            return true;
    }
}

const char *raw_header(const raw_response *response, const char *name)
{
    static _Thread_local char value[8192];
    size_t n = strlen(name);
    const char *line = response->head.data;
    while (line && *line && strncmp(line, "\r\n", 2) != 0) {
        if (strncasecmp(line, name, n) == 0 && line[n] == ':') {
            const char *from = line + n + 1 + strspn(line + n + 1, " ");
            size_t length = strcspn(from, "\r");
            memcpy(value, from, length);
            value[length] = '\0';
            return value;
        }
        line = strstr(line, "\r\n");
        line = line ? line + 2 : NULL;
    }
    return NULL;
}

const char *raw_body(const raw_response *response)
{
    return response->body.data ? response->body.data : "";
}

raw_response raw_read(int fd, bool head_only)
{
    raw_response response = {.status = 0};
    char byte;
    while (!response.head.n || response.head.n < 4 ||
           memcmp(response.head.data + response.head.n - 4, "\r\n\r\n", 4) != 0) {
        if (!read_byte(fd, &byte))
            return response;
        pl_strbuf_add(&response.head, &byte, 1);
    }
    cr_assert_eq(strncmp(response.head.data, "HTTP/1.1 ", 9), 0, "%s", response.head.data);
    response.status = atoi(response.head.data + 9);
    response.chunked = raw_header(&response, "transfer-encoding");
    const char *length = raw_header(&response, "content-length");
    if (head_only || response.status == 204 || response.status == 304 || response.status < 200)
        return response;
    if (response.chunked)
        response.cut = !read_chunks(fd, &response.body);
    else if (length)
        response.cut = !read_bytes(fd, &response.body, strtoul(length, NULL, 10));
    else
        while (read_byte(fd, &byte))
            pl_strbuf_add(&response.body, &byte, 1);
    return response;
}

void raw_free(raw_response *response)
{
    pl_strbuf_free(&response->head);
    pl_strbuf_free(&response->body);
}

raw_response raw_ask(int fd, const char *text)
{
    raw_send(fd, text);
    return raw_read(fd, strncmp(text, "HEAD", 4) == 0);
}

int raw_read_end(int fd)
{
    char buffer[4096];
    int sum = 0;
    ssize_t n;
    while ((n = recv(fd, buffer, sizeof buffer, 0)) > 0)
        sum += (int)n;
    cr_assert(n == 0 || errno == ECONNRESET, "the connection is still open after %d s", RAW_PATIENCE_S);
    return n == 0 ? sum : -1;
}
