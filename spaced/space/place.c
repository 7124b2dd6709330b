/* See place.h. */
#include "spaced/space/place.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/cleanup.h"

#define BUSY_TRIES 40
#define BUSY_WAIT_MS 50

struct place {
	uv_loop_t *loop;
	struct spawner *spawner;
	struct op *ops;
	bool freed; /* by place_free; the last call under way frees it for real */
};

enum op_kind { OP_PLAIN, OP_VOLUMES, OP_LIST, OP_OPEN, OP_LISTENERS, OP_EXEC, OP_STATS, OP_START };

struct op {
	struct place *p;
	enum op_kind kind;
	enum spawn_verb verb;
	struct buf payload; /* for another try */
	char name[SANDBOX_NAME_MAX + 1];
	void *ctx;
	union {
		place_cb plain;
		void (*volumes)(void *ctx, const struct place_volume *v, size_t n, const struct err *err);
		void (*list)(void *ctx, const struct place_status *v, size_t n, const struct err *err);
		void (*open)(void *ctx, const char *name, const int *fds, int n, const struct err *err);
		void (*listeners)(void *ctx, const char *name, const char *list);
		void (*exec)(void *ctx, uint32_t exec, const int *fds, int n, const struct err *err);
		void (*stats)(void *ctx, const char *name, const struct place_stats *stats, const struct err *err);
	} cb;
	bool inside; /* the call to the spawner has not returned yet */
	unsigned tries;
	struct err held; /* an answer that came from within the call */
	uv_timer_t timer;
	struct place_volume *volumes;
	size_t nvolumes;
	/* start */
	struct buf spec;
	int fds[3];
	bool has_top;
	char top[SANDBOX_NAME_MAX + 1];
	uint64_t top_bytes;
	struct op *prev, *next;
};

struct place *place_new(uv_loop_t *loop, struct spawner *spawner)
{
	struct place *p = xcalloc(1, sizeof *p);

	p->loop = loop;
	p->spawner = spawner;
	return p;
}

bool place_connected(const struct place *p)
{
	return spawner_connected(p->spawner);
}

static void op_closed(uv_handle_t *h)
{
	struct op *o = h->data;

	for (int i = 0; i < 3; i++)
		cleanup_closep(&o->fds[i]);
	buf_release(&o->payload);
	buf_release(&o->spec);
	free(o->volumes);
	free(o);
}

static void op_free(struct op *o)
{
	if (o->prev)
		o->prev->next = o->next;
	else
		o->p->ops = o->next;
	if (o->next)
		o->next->prev = o->prev;
	if (o->p->freed && !o->p->ops)
		free(o->p);
	uv_close((uv_handle_t *)&o->timer, op_closed);
}

/* The loop ends: what waits for another try is dropped. Calls under way are answered by spawner_free later; they have no
 * callback any more, and the last one frees `p`. */
void place_free(struct place *p)
{
	struct op *next;

	for (struct op *o = p->ops; o; o = o->next)
		memset(&o->cb, 0, sizeof o->cb);
	for (struct op *o = p->ops; o; o = next) {
		next = o->next;
		if (uv_is_active((uv_handle_t *)&o->timer))
			op_free(o);
	}
	p->freed = p->ops != NULL;
	if (!p->freed)
		free(p);
}

static struct op *op_new(struct place *p, enum op_kind kind, enum spawn_verb verb, const char *name, void *ctx)
{
	struct op *o = xcalloc(1, sizeof *o);

	o->p = p;
	o->kind = kind;
	o->verb = verb;
	o->ctx = ctx;
	o->fds[0] = o->fds[1] = o->fds[2] = -1;
	snprintf(o->name, sizeof o->name, "%s", name);
	uv_timer_init(p->loop, &o->timer);
	o->timer.data = o;
	o->next = p->ops;
	if (p->ops)
		p->ops->prev = o;
	p->ops = o;
	return o;
}

static void answer(struct op *o, struct frame *f, const struct err *err);

static void on_answer(void *ctx, struct frame *f, const struct err *err);

static void submit(struct op *o)
{
	int fds[3];
	int n = 0;

	for (int i = 0; i < 3; i++)
		if (o->fds[i] >= 0)
			fds[n++] = o->fds[i];
	o->inside = true;
	spawner_call(o->p->spawner, o->verb, &o->payload, n ? fds : NULL, o->verb == SPAWN_START ? n : 0, on_answer, o);
	o->inside = false;
}

static void on_again(uv_timer_t *t)
{
	submit(t->data);
}

static void on_held(uv_timer_t *t)
{
	struct op *o = t->data;

	answer(o, NULL, &o->held);
}

static void add_volumes(struct op *o, struct frame *f)
{
	struct reader r = reader_of(f->payload, f->len);

	get_u8(&r);
	uint32_t n = get_u32(&r);
	for (uint32_t i = 0; i < n && !r.bad; i++) {
		struct place_volume v;
		get_str(&r, v.name, sizeof v.name);
		v.bytes = get_u64(&r);
		if (r.bad)
			break;
		o->volumes = xreallocarray(o->volumes, o->nvolumes + 1, sizeof *o->volumes);
		o->volumes[o->nvolumes++] = v;
	}
}

static void on_answer(void *ctx, struct frame *f, const struct err *err)
{
	struct op *o = ctx;

	if (o->inside) {
		o->held = *err;
		uv_timer_start(&o->timer, on_held, 0, 0);
		return;
	}
	bool volume = o->verb == SPAWN_VOLUME_RENAME || o->verb == SPAWN_VOLUME_REMOVE ||
		      o->verb == SPAWN_VOLUME_ENSURE || o->verb == SPAWN_START;
	if (err && err->code == EBUSY && volume && o->tries++ < BUSY_TRIES) {
		uv_timer_start(&o->timer, on_again, BUSY_WAIT_MS, 0);
		return;
	}
	if (o->kind == OP_VOLUMES && f) {
		add_volumes(o, f);
		if (f->len && f->payload[0])
			return; /* another frame follows */
	}
	answer(o, f, err);
}

static void answer_list(struct op *o, struct frame *f, const struct err *err)
{
	struct place_status *v = NULL;
	size_t n = 0;

	if (f) {
		struct reader r = reader_of(f->payload, f->len);
		uint32_t count = get_u32(&r);
		for (uint32_t i = 0; i < count && !r.bad; i++) {
			v = xreallocarray(v, n + 1, sizeof *v);
			get_str(&r, v[n].name, sizeof v[n].name);
			v[n].running = get_u8(&r);
			v[n].started = get_u64(&r);
			if (sandbox_exit_decode(&r, &v[n].exit))
				n++;
		}
	}
	o->cb.list(o->ctx, v, n, err);
	free(v);
}

static int take_fds(struct frame *f, int fds[FRAME_MAX_FDS])
{
	int n = 0;

	for (int i = 0; f && i < f->nfds; i++)
		if ((fds[n] = frame_take_fd(f, i)) >= 0)
			n++;
	return n;
}

static void answer_open(struct op *o, struct frame *f, const struct err *err)
{
	int fds[FRAME_MAX_FDS];
	int n = take_fds(f, fds);

	o->cb.open(o->ctx, o->name, fds, n, err);
}

static void answer_exec(struct op *o, struct frame *f, const struct err *err)
{
	int fds[FRAME_MAX_FDS];
	int n = take_fds(f, fds);
	struct reader r = f ? reader_of(f->payload, f->len) : (struct reader){0};

	o->cb.exec(o->ctx, f ? get_u32(&r) : 0, fds, n, err);
}

static void answer_listeners(struct op *o, struct frame *f)
{
	cleanup_buf struct buf list = BUF_INIT;

	buf_adds(&list, "");
	if (f) {
		struct reader r = reader_of(f->payload, f->len);
		uint32_t n = get_u32(&r);
		for (uint32_t i = 0; i < n && i < 16 && !r.bad; i++) {
			struct str s = get_bytes(&r);
			if (s.n < 64)
				buf_addf(&list, "%s%.*s", i ? ", " : "", (int)s.n, s.p);
		}
	}
	o->cb.listeners(o->ctx, o->name, f ? list.data : NULL);
}

static void get_disk(struct reader *r, struct disk_usage *d)
{
	d->used = get_u64(r);
	d->size = get_u64(r);
	d->inodes_used = get_u64(r);
	d->inodes = get_u64(r);
}

/* What a newer spawner puts behind these fields is not read. */
static void answer_stats(struct op *o, struct frame *f, const struct err *err)
{
	cleanup_free char *cgroup = NULL;
	struct place_stats st = {0};
	struct err bad;

	if (f) {
		struct reader r = reader_of(f->payload, f->len);
		st.memory = get_u64(&r);
		st.cpu_usec = get_u64(&r);
		st.pids = get_u32(&r);
		st.memory_limit = get_u64(&r);
		st.memory_peak = get_u64(&r);
		st.throttled_usec = get_u64(&r);
		st.oom_kills = get_u64(&r);
		st.cpu_milli = get_u32(&r);
		st.pids_limit = get_u32(&r);
		get_disk(&r, &st.top);
		get_disk(&r, &st.data);
		st.received = get_u64(&r);
		st.sent = get_u64(&r);
		cgroup = get_strdup(&r, 4096);
		st.cgroup = cgroup;
		if (r.bad) {
			err_set(&bad, EBADMSG, "figures of %s", o->name);
			err = &bad;
		}
	}
	o->cb.stats(o->ctx, o->name, err ? NULL : &st, err);
}

static void put_volume(struct op *o, enum spawn_verb verb, const char *name, uint64_t bytes)
{
	o->verb = verb;
	buf_clear(&o->payload);
	put_str(&o->payload, name);
	put_u64(&o->payload, bytes);
}

/* A volume is there (or could not be made): now the next one, or the sandbox. A data volume that cannot be grown beside the
 * instance that uses it does as it is: no deploy fails for it, and the next start without another grows it. */
static bool start_next(struct op *o, const struct err *err)
{
	bool ungrown = err && o->verb == SPAWN_VOLUME_ENSURE && err->code == EBUSY;

	if (o->verb == SPAWN_START || (err && !ungrown))
		return false;
	o->tries = 0;
	if (o->verb == SPAWN_VOLUME_ENSURE && o->has_top) {
		put_volume(o, SPAWN_VOLUME_CREATE, o->top, o->top_bytes);
	} else {
		o->verb = SPAWN_START;
		buf_release(&o->payload);
		o->payload = o->spec;
		o->spec = BUF_INIT;
	}
	submit(o);
	return true;
}

static void answer(struct op *o, struct frame *f, const struct err *err)
{
	if (!o->cb.plain) {
		op_free(o);
		return;
	}
	switch (o->kind) {
	case OP_START:
		if (start_next(o, err))
			return;
		if (err && o->has_top && o->verb != SPAWN_VOLUME_ENSURE)
			place_volume_remove(o->p, o->top, NULL, NULL);
		o->cb.plain(o->ctx, o->name, err);
		break;
	case OP_PLAIN:
		o->cb.plain(o->ctx, o->name, err);
		break;
	case OP_VOLUMES:
		o->cb.volumes(o->ctx, o->volumes, o->nvolumes, err);
		break;
	case OP_LIST:
		answer_list(o, f, err);
		break;
	case OP_OPEN:
		answer_open(o, f, err);
		break;
	case OP_LISTENERS:
		answer_listeners(o, f);
		break;
	case OP_EXEC:
		answer_exec(o, f, err);
		break;
	case OP_STATS:
		answer_stats(o, f, err);
		break;
	}
	op_free(o);
}

void place_volume_create(struct place *p, const char *name, uint64_t bytes, place_cb cb, void *ctx)
{
	struct op *o = op_new(p, OP_PLAIN, SPAWN_VOLUME_CREATE, name, ctx);

	o->cb.plain = cb;
	put_str(&o->payload, name);
	put_u64(&o->payload, bytes);
	submit(o);
}

void place_volume_rename(struct place *p, const char *from, const char *to, place_cb cb, void *ctx)
{
	struct op *o = op_new(p, OP_PLAIN, SPAWN_VOLUME_RENAME, to, ctx);

	o->cb.plain = cb;
	put_str(&o->payload, from);
	put_str(&o->payload, to);
	submit(o);
}

void place_volume_remove(struct place *p, const char *name, place_cb cb, void *ctx)
{
	struct op *o = op_new(p, OP_PLAIN, SPAWN_VOLUME_REMOVE, name, ctx);

	o->cb.plain = cb;
	put_str(&o->payload, name);
	submit(o);
}

void place_base_remove(struct place *p, const char *id, place_cb cb, void *ctx)
{
	struct op *o = op_new(p, OP_PLAIN, SPAWN_BASE_REMOVE, id, ctx);

	o->cb.plain = cb;
	put_str(&o->payload, id);
	submit(o);
}

void place_volumes(struct place *p,
		   void (*cb)(void *ctx, const struct place_volume *v, size_t n, const struct err *err), void *ctx)
{
	struct op *o = op_new(p, OP_VOLUMES, SPAWN_VOLUME_LIST, "", ctx);

	o->cb.volumes = cb;
	submit(o);
}

static int keep_fd(int fd)
{
	return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

void place_volume_ensure(struct place *p, const char *name, uint64_t bytes, place_cb cb, void *ctx)
{
	struct op *o = op_new(p, OP_PLAIN, SPAWN_VOLUME_ENSURE, name, ctx);

	o->cb.plain = cb;
	put_volume(o, SPAWN_VOLUME_ENSURE, name, bytes);
	submit(o);
}

void place_start(struct place *p, const struct sandbox_spec *spec, uint64_t top_bytes, uint64_t data_bytes, int log_fd,
		 int stdin_fd, int stdout_fd, place_cb cb, void *ctx)
{
	struct op *o = op_new(p, OP_START, SPAWN_START, spec->name, ctx);

	o->cb.plain = cb;
	sandbox_spec_encode(spec, &o->spec);
	put_u8(&o->spec, stdin_fd >= 0);
	put_u8(&o->spec, stdout_fd >= 0);
	o->fds[0] = keep_fd(log_fd);
	o->fds[1] = keep_fd(stdin_fd);
	o->fds[2] = keep_fd(stdout_fd);
	if (o->spec.len > FRAME_MAX_PAYLOAD) {
		err_text(&o->held, E2BIG, "arguments and environment take %zu bytes, at most %u fit", o->spec.len,
			 FRAME_MAX_PAYLOAD);
		uv_timer_start(&o->timer, on_held, 0, 0);
		return;
	}
	if (top_bytes) {
		o->has_top = true;
		o->top_bytes = top_bytes;
		snprintf(o->top, sizeof o->top, "%s", spec->top);
	}
	if (data_bytes) {
		put_volume(o, SPAWN_VOLUME_ENSURE, spec->binds[0].volume, data_bytes);
	} else if (top_bytes) {
		put_volume(o, SPAWN_VOLUME_CREATE, spec->top, top_bytes);
	} else {
		o->payload = o->spec;
		o->spec = BUF_INIT;
	}
	submit(o);
}

void place_stop(struct place *p, const char *name, uint32_t grace_ms, place_cb cb, void *ctx)
{
	struct op *o = op_new(p, OP_PLAIN, SPAWN_STOP, name, ctx);

	o->cb.plain = cb;
	put_str(&o->payload, name);
	put_u32(&o->payload, grace_ms);
	submit(o);
}

static void name_op(struct place *p, enum spawn_verb verb, const char *name, place_cb cb, void *ctx)
{
	struct op *o = op_new(p, OP_PLAIN, verb, name, ctx);

	o->cb.plain = cb;
	put_str(&o->payload, name);
	submit(o);
}

void place_freeze(struct place *p, const char *name, place_cb cb, void *ctx)
{
	name_op(p, SPAWN_FREEZE, name, cb, ctx);
}

void place_thaw(struct place *p, const char *name, place_cb cb, void *ctx)
{
	name_op(p, SPAWN_THAW, name, cb, ctx);
}

void place_page_out(struct place *p, const char *name, place_cb cb, void *ctx)
{
	name_op(p, SPAWN_PAGE_OUT, name, cb, ctx);
}

void place_forget(struct place *p, const char *name)
{
	spawner_name_call(p->spawner, SPAWN_FORGET, name, NULL, NULL);
}

void place_list(struct place *p, void (*cb)(void *ctx, const struct place_status *v, size_t n, const struct err *err),
		void *ctx)
{
	struct op *o = op_new(p, OP_LIST, SPAWN_LIST, "", ctx);

	o->cb.list = cb;
	submit(o);
}

void place_open(struct place *p, const char *name, uint32_t n,
		void (*cb)(void *ctx, const char *name, const int *fds, int n, const struct err *err), void *ctx)
{
	struct op *o = op_new(p, OP_OPEN, SPAWN_OPEN, name, ctx);

	o->cb.open = cb;
	put_str(&o->payload, name);
	put_u32(&o->payload, n);
	submit(o);
}

void place_listeners(struct place *p, const char *name, void (*cb)(void *ctx, const char *name, const char *list),
		     void *ctx)
{
	struct op *o = op_new(p, OP_LISTENERS, SPAWN_LISTENERS, name, ctx);

	o->cb.listeners = cb;
	put_str(&o->payload, name);
	submit(o);
}

void place_exec(struct place *p, const char *name, const struct exec_request *q,
		void (*cb)(void *ctx, uint32_t exec, const int *fds, int n, const struct err *err), void *ctx)
{
	struct op *o = op_new(p, OP_EXEC, SPAWN_EXEC, name, ctx);

	o->cb.exec = cb;
	put_str(&o->payload, name);
	exec_request_encode(q, &o->payload);
	submit(o);
}

void place_exec_signal(struct place *p, const char *name, uint32_t exec, uint32_t signo)
{
	cleanup_buf struct buf b = BUF_INIT;

	put_str(&b, name);
	put_u32(&b, exec);
	put_u32(&b, signo);
	spawner_call(p->spawner, SPAWN_EXEC_SIGNAL, &b, NULL, 0, NULL, NULL);
}

void place_stats(struct place *p, const char *name,
		 void (*cb)(void *ctx, const char *name, const struct place_stats *stats, const struct err *err),
		 void *ctx)
{
	struct op *o = op_new(p, OP_STATS, SPAWN_STATS, name, ctx);

	o->cb.stats = cb;
	put_str(&o->payload, name);
	submit(o);
}
