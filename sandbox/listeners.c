/* See listeners.h. */
#include "sandbox/listeners.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/frame.h"

#define TCP_LISTEN_HEX 0x0a /* include/net/tcp_states.h */
#define LINE_MAX_ 256
/* The kernel names those that listen first (tcp_get_idx()), so this is enough for LISTENERS_MAX of them, however many
 * connections an app has: of a hundred thousand, the rest of the table would hold the spawner up for seconds. */
#define TABLE_READ (64U << 10)

/* "0100007F" or 32 digits: words in host byte order, each holding network order (proc_net_tcp(5)). */
static bool parse_addr(const char *hex, size_t n, char out[INET6_ADDRSTRLEN + 2])
{
	uint32_t words[4];
	char text[INET6_ADDRSTRLEN];

	if (n != 8 && n != 32)
		return false;
	for (size_t i = 0; i < n / 8; i++)
		if (sscanf(hex + i * 8, "%8x", &words[i]) != 1)
			return false;
	if (!inet_ntop(n == 8 ? AF_INET : AF_INET6, words, text, sizeof text))
		return false;
	snprintf(out, INET6_ADDRSTRLEN + 2, n == 8 ? "%s" : "[%s]", text);
	return true;
}

uint32_t listeners_parse(const char *text, uint32_t max, struct buf *out)
{
	uint32_t n = 0;

	for (size_t len; *text && n < max; text += len + (text[len] == '\n')) {
		char line[LINE_MAX_], local[40];
		char addr[INET6_ADDRSTRLEN + 2];
		char name[INET6_ADDRSTRLEN + 10];
		unsigned port, state;
		len = strcspn(text, "\n");
		snprintf(line, sizeof line, "%.*s", (int)(len < sizeof line ? len : sizeof line - 1), text);
		if (sscanf(line, " %*u: %39[0-9A-Fa-f]:%4x %*[0-9A-Fa-f]:%*x %2x", local, &port, &state) != 3 ||
		    state != TCP_LISTEN_HEX || !parse_addr(local, strlen(local), addr))
			continue;
		snprintf(name, sizeof name, "%s:%u", addr, port);
		put_str(out, name);
		n++;
	}
	return n;
}

/* What fits of the beginning, whole lines. */
static size_t read_table(const char *path, char table[TABLE_READ])
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t n = 0;
	ssize_t k;

	while (fd >= 0 && n < TABLE_READ - 1 && (k = read(fd, table + n, TABLE_READ - 1 - n)) > 0)
		n += (size_t)k;
	while (n && table[n - 1] != '\n')
		n--;
	table[n] = '\0';
	return n;
}

uint32_t listeners_of(pid_t pid, struct buf *out)
{
	static const char *const files[] = {"tcp", "tcp6"};
	static char table[TABLE_READ];
	uint32_t n = 0;

	for (size_t i = 0; i < 2; i++) {
		char path[64];
		snprintf(path, sizeof path, "/proc/%d/net/%s", (int)pid, files[i]);
		if (read_table(path, table))
			n += listeners_parse(table, LISTENERS_MAX - n, out);
	}
	return n;
}
