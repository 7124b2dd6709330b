/* The messages between roles: one frame per SOCK_SEQPACKET message, imsg-style (OpenBSD imsg_init(3)).
 * A frame is a fixed head, a payload of typed fields, and at most FRAME_MAX_FDS descriptors.
 * Sizes are checked before a payload is touched; a malformed frame from a less trusted peer is that peer's end. */
#ifndef BASE_FRAME_H
#define BASE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

#define FRAME_MAX_PAYLOAD (96U * 1024)
#define FRAME_MAX_FDS 16

struct frame {
	uint32_t type; /* an enum of the protocol in question */
	uint32_t id;   /* pairs a reply with its request; 0: an event nobody asked for */
	uint8_t *payload;
	size_t len;
	int fds[FRAME_MAX_FDS]; /* owned; taken ones are set to -1 by the taker */
	int nfds;
};

/* Creates a connected SEQPACKET pair, close-on-exec, with room for full frames. 0 or negative errno. */
int frame_pair(int sv[2]);
/* Sends one frame; `fds` stay the caller's. 0, or negative errno (-EAGAIN on a full non-blocking socket). */
int frame_send(int sock, uint32_t type, uint32_t id, const void *payload, size_t len, const int *fds, int nfds);
/* Whether that result of frame_send() passes by itself: nothing was sent, the same may be sent later. */
bool frame_again(int r);
/* Receives one frame into `f` (released by frame_release). 1: a frame; 0: the peer has closed;
 * negative errno: -EAGAIN nothing there, -EBADMSG malformed (oversized, truncated, too many descriptors), -EMFILE this
 * process has no room for the descriptors (they are gone; of the frame there are type and id, and nothing to release). */
int frame_recv(int sock, struct frame *f);
void frame_release(struct frame *f);
/* Takes descriptor `i` out of the frame, -1 when there is none. */
int frame_take_fd(struct frame *f, int i);

/* Writing a payload: append fields to a buf in the order in which they are read. */
void put_u8(struct buf *b, uint8_t v);
void put_u32(struct buf *b, uint32_t v);
void put_u64(struct buf *b, uint64_t v);
void put_bytes(struct buf *b, const void *p, size_t n);
void put_str(struct buf *b, const char *s); /* NULL is sent as "" */

/* Reading one: errors stick, so a decoder reads all fields and asks get_ok() once, at the end. */
struct reader {
	const uint8_t *p;
	size_t left;
	bool bad;
};
struct reader reader_of(const void *p, size_t n);
uint8_t get_u8(struct reader *r);
uint32_t get_u32(struct reader *r);
uint64_t get_u64(struct reader *r);
struct str get_bytes(struct reader *r);
/* A malloc'd string of at most `max` bytes without NUL inside; NULL (and a sticky error) otherwise. */
char *get_strdup(struct reader *r, size_t max);
/* The same into a fixed array; false (and a sticky error) when it does not fit. */
bool get_str(struct reader *r, char *dst, size_t size);
/* True when every field was there and nothing is left over. */
bool get_ok(const struct reader *r);
/* The same of a peer that is trusted as much and may be of a newer version: what it says behind the fields is not known here. */
bool get_known(const struct reader *r);

#endif
