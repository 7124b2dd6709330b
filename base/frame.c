/* See frame.h. The head is in host byte order: both ends are this program on this machine. */
#include "base/frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

struct head {
	uint32_t magic;
	uint32_t type;
	uint32_t id;
	uint32_t len;
};
#define FRAME_MAGIC 0x53504344U /* "SPCD" */

int frame_pair(int sv[2])
{
	int room = 4 * (int)(FRAME_MAX_PAYLOAD + sizeof(struct head));

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	for (int i = 0; i < 2; i++)
		setsockopt(sv[i], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
	return 0;
}

int frame_send(int sock, uint32_t type, uint32_t id, const void *payload, size_t len, const int *fds, int nfds)
{
	struct head h = {FRAME_MAGIC, type, id, (uint32_t)len};
	struct iovec iov[2] = {{&h, sizeof h}, {(void *)(uintptr_t)payload, len}};
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * FRAME_MAX_FDS)];
	} ctl;
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = len ? 2 : 1};

	if (len > FRAME_MAX_PAYLOAD || nfds < 0 || nfds > FRAME_MAX_FDS)
		return -EMSGSIZE;
	if (nfds) {
		memset(&ctl, 0, sizeof ctl);
		m.msg_control = ctl.space;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)nfds);
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)nfds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * (size_t)nfds);
	}
	ssize_t n;
	do
		n = sendmsg(sock, &m, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* Descriptors on their way are counted too (ETOOMANYREFS, unix(7)). */
bool frame_again(int r)
{
	return r == -EAGAIN || r == -ENOBUFS || r == -ENOMEM || r == -ETOOMANYREFS;
}

static void take_rights(struct msghdr *m, struct frame *f, bool *too_many)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
			if (f->nfds < FRAME_MAX_FDS) {
				f->fds[f->nfds++] = fd;
			} else {
				*too_many = true;
				close(fd);
			}
		}
	}
}

int frame_recv(int sock, struct frame *f)
{
	static _Thread_local uint8_t room[FRAME_MAX_PAYLOAD];
	struct head h;
	struct iovec iov[2] = {{&h, sizeof h}, {room, sizeof room}};
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int) * (FRAME_MAX_FDS + 1))];
	} ctl;
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2, .msg_control = ctl.space, .msg_controllen = sizeof ctl};
	bool too_many = false;
	ssize_t n;

	memset(f, 0, sizeof *f);
	do
		n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? 0 : -errno;
	take_rights(&m, f, &too_many);
	if (n == 0 && f->nfds == 0)
		return 0;
	if ((m.msg_flags & MSG_TRUNC) || too_many || (size_t)n < sizeof h || h.magic != FRAME_MAGIC ||
	    h.len != (size_t)n - sizeof h) {
		frame_release(f);
		return -EBADMSG;
	}
	/* More than there is room for in `ctl` are too many; so it is the table of descriptors that was full (unix(7)). */
	bool full = m.msg_flags & MSG_CTRUNC;
	if (full)
		frame_release(f);
	f->type = h.type;
	f->id = h.id;
	if (full)
		return -EMFILE;
	f->len = h.len;
	f->payload = xmalloc(h.len);
	memcpy(f->payload, room, h.len);
	explicit_bzero(room,
		       h.len); /* some carry secrets: they are where their owner can wipe them, and nowhere else */
	return 1;
}

void frame_release(struct frame *f)
{
	for (int i = 0; i < f->nfds; i++)
		if (f->fds[i] >= 0)
			close(f->fds[i]);
	free(f->payload);
	memset(f, 0, sizeof *f);
}

int frame_take_fd(struct frame *f, int i)
{
	if (i < 0 || i >= f->nfds)
		return -1;
	int fd = f->fds[i];
	f->fds[i] = -1;
	return fd;
}

void put_u8(struct buf *b, uint8_t v)
{
	buf_add(b, &v, sizeof v);
}

void put_u32(struct buf *b, uint32_t v)
{
	buf_add(b, &v, sizeof v);
}

void put_u64(struct buf *b, uint64_t v)
{
	buf_add(b, &v, sizeof v);
}

void put_bytes(struct buf *b, const void *p, size_t n)
{
	put_u32(b, (uint32_t)n);
	buf_add(b, p, n);
}

void put_str(struct buf *b, const char *s)
{
	put_bytes(b, s ? s : "", s ? strlen(s) : 0);
}

struct reader reader_of(const void *p, size_t n)
{
	return (struct reader){.p = p, .left = n};
}

static bool take(struct reader *r, void *dst, size_t n)
{
	if (r->bad || r->left < n) {
		r->bad = true;
		memset(dst, 0, n);
		return false;
	}
	memcpy(dst, r->p, n);
	r->p += n;
	r->left -= n;
	return true;
}

uint8_t get_u8(struct reader *r)
{
	uint8_t v;
	take(r, &v, sizeof v);
	return v;
}

uint32_t get_u32(struct reader *r)
{
	uint32_t v;
	take(r, &v, sizeof v);
	return v;
}

uint64_t get_u64(struct reader *r)
{
	uint64_t v;
	take(r, &v, sizeof v);
	return v;
}

struct str get_bytes(struct reader *r)
{
	uint32_t n = get_u32(r);

	if (r->bad || n > r->left) {
		r->bad = true;
		return (struct str){"", 0};
	}
	struct str s = {(const char *)r->p, n};
	r->p += n;
	r->left -= n;
	return s;
}

char *get_strdup(struct reader *r, size_t max)
{
	struct str s = get_bytes(r);

	if (r->bad || s.n > max || memchr(s.p, '\0', s.n)) {
		r->bad = true;
		return NULL;
	}
	return xstrndup(s.p, s.n);
}

bool get_str(struct reader *r, char *dst, size_t size)
{
	struct str s = get_bytes(r);

	dst[0] = '\0';
	if (r->bad || s.n >= size || memchr(s.p, '\0', s.n)) {
		r->bad = true;
		return false;
	}
	memcpy(dst, s.p, s.n);
	dst[s.n] = '\0';
	return true;
}

bool get_ok(const struct reader *r)
{
	return !r->bad && r->left == 0;
}

bool get_known(const struct reader *r)
{
	return !r->bad;
}
