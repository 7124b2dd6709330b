/* See listeners.h. */
#include "sandbox/listeners.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/frame.h"
#include "base/io.h"

#define TCP_LISTEN_HEX 0x0a /* include/net/tcp_states.h */
#define TABLE_MAX (4U << 20)

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

	for (const char *p = text; p && *p && n < max; p = strchr(p, '\n'), p = p ? p + 1 : NULL) {
		char local[40];
		char addr[INET6_ADDRSTRLEN + 2];
		char name[INET6_ADDRSTRLEN + 10];
		unsigned port, state;
		if (sscanf(p, " %*u: %39[0-9A-Fa-f]:%4x %*[0-9A-Fa-f]:%*x %2x", local, &port, &state) != 3 ||
		    state != TCP_LISTEN_HEX || !parse_addr(local, strlen(local), addr))
			continue;
		snprintf(name, sizeof name, "%s:%u", addr, port);
		put_str(out, name);
		n++;
	}
	return n;
}

uint32_t listeners_of(pid_t pid, struct buf *out)
{
	static const char *const files[] = {"tcp", "tcp6"};
	uint32_t n = 0;

	for (size_t i = 0; i < 2; i++) {
		cleanup_buf struct buf text = BUF_INIT;
		char path[64];
		snprintf(path, sizeof path, "/proc/%d/net/%s", (int)pid, files[i]);
		if (io_read_file(AT_FDCWD, path, TABLE_MAX, &text) == 0 && text.len)
			n += listeners_parse(text.data, LISTENERS_MAX - n, out);
	}
	return n;
}
