/* A frame socket on a libuv loop: queued sending (a full socket never loses a frame) and one callback per received frame.
 * Both ends of the daemon that live on a loop use it. */
#ifndef BASE_CHANNEL_H
#define BASE_CHANNEL_H

#include <uv.h>

#include "base/frame.h"

struct channel;
/* The frame's descriptors may be taken; it is released after the call. */
typedef void (*channel_frame_cb)(void *ctx, struct frame *f);
/* The peer is gone, or sent something malformed (err < 0: negative errno). Called once; the channel is still to be closed
 * by its owner. */
typedef void (*channel_end_cb)(void *ctx, int err);

/* Takes over `sock`. Descriptors for which this process has no room are its end, with -EMFILE. */
struct channel *channel_open(uv_loop_t *loop, int sock, channel_frame_cb on_frame, channel_end_cb on_end, void *ctx);
/* From here on they are not: `cb` is told of which frame they were, and the channel goes on. */
void channel_on_no_room(struct channel *c, void (*cb)(void *ctx, uint32_t type, uint32_t id));
/* Queues a frame; descriptors are duplicated, so they stay the caller's. Sending on an ended channel is a no-op. */
void channel_send(struct channel *c, uint32_t type, uint32_t id, const void *payload, size_t len, const int *fds,
		  int nfds);
/* Bytes that the kernel has not taken yet, with what it costs to keep them. */
size_t channel_queued(const struct channel *c);
/* Closes the socket and frees it on a later turn of the loop; no callback comes after this. NULL is fine. */
void channel_close(struct channel *c);

#endif
