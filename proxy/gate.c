/* The gate of private Spaces: a request passes with a ticket (cookie or `__sign`, checked here) or with a token (control is asked;
 * the answer is remembered for a short time). Everything is refused before a byte of it reaches an app, a page about the
 * app, or a queue. Called by exchange.c for each request to a Space.
 * Nothing here is logged: tickets and tokens are in no log. */
#include <errno.h>
#include <sodium.h>

#include "base/io.h"
#include "proxy/credentials.h"
#include "proxy/gate.h"
#include "proxy/ticket.h"
#include "proxy/worker.h"

#define ASKS_MAX 1024 /* questions under way */
#define CACHE 1024
#define GOOD_MS 60000 /* how long answers are remembered; new keys end it at once */
#define BAD_MS 10000
#define TOKEN_MAX 127
#define LINK_PATH_MAX 2048
#define DIGEST 16

/* Of (Space, token), keyed: no token stays in memory, and nobody can aim at a slot. */
struct answer {
	unsigned char what[DIGEST];
	uint64_t until; /* of the loop's clock; 0: empty */
	enum gate_verdict verdict;
	char user[TICKET_ID];
};

struct ask {
	struct ask *next;
	struct exchange *x; /* NULL: gone */
	unsigned char what[DIGEST];
	uint32_t id;
	struct buf question; /* of PROXY_ASK, with the token: a control that takes over is asked again */
};

struct gate {
	struct ticket_keys keys;
	unsigned char salt[crypto_generichash_KEYBYTES];
	struct answer cache[CACHE];
	struct ask *asks;
	size_t nasks;
	uint32_t ids;
	struct buf scratch, text; /* a request's fields anew; an address or header lines */
};

void gate_init(struct worker *w)
{
	w->gate = xcalloc(1, sizeof *w->gate);
	if (sodium_init() < 0)
		abort();
	randombytes_buf(w->gate->salt, sizeof w->gate->salt);
}

static uint64_t wall_seconds(void)
{
	return io_wall_ms() / 1000;
}

/* ---- refusals ---- */

static void add_escaped(struct buf *b, struct str s)
{
	static const char hex[] = "0123456789ABCDEF";

	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)s.p[i];
		bool plain =
		    (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '/' || c == '.';
		if (plain)
			buf_addc(b, (char)c);
		else
			buf_add(b, (char[]){'%', hex[c >> 4], hex[c & 15]}, 3);
	}
}

/* Where to sign in and come back from; NULL: nowhere. */
static const char *sign_in_link(struct exchange *x, struct gate *g, const struct http1_request *r)
{
	if (!g->keys.sign_in[0])
		return NULL;
	buf_clear(&g->text);
	buf_addf(&g->text, "%s?space=%s", g->keys.sign_in, x->target->space_id);
	if (r)
		buf_addf(&g->text, "&host=%s", r->host);
	if (r && x->method == HTTP1_GET && r->target.n <= LINK_PATH_MAX) {
		buf_adds(&g->text, "&path=");
		add_escaped(&g->text, r->target);
	}
	return g->text.data;
}

/* `r` NULL: the head is gone. */
static void refuse(struct exchange *x, enum gate_verdict verdict, unsigned wait, const struct http1_request *r)
{
	struct gate *g = x->c->conn.w->gate;
	struct page page;

	x->refused = REFUSED_ACCESS;
	switch (verdict) {
	case VERDICT_FOREIGN: /* as if it did not exist: the words of exchange.c for an unknown host */
		exchange_error(x, 404, "There is nothing at this address",
			       "No Space is served under this host name. Check the spelling of the address.");
		return;
	case VERDICT_SLOW:
		page = (struct page){.status = 429,
				     .title = "Too many wrong tokens",
				     .text = "There were too many from your address. Try again later.",
				     .retry_after = wait};
		break;
	case VERDICT_LATER:
		exchange_error(x, 503, "This Space cannot be opened at this moment", "Try again in a few seconds.");
		return;
	case VERDICT_WRONG:
		page = (struct page){.status = 401,
				     .title = "This token is not valid",
				     .text = "It is misspelt, or it was removed.",
				     .headers = "WWW-Authenticate: Bearer realm=\"Spaced\", error=\"invalid_token\"\r\n"
						"X-Error-Message: Invalid credentials in Authorization header\r\n"};
		break;
	default:
		page = (struct page){.status = 401,
				     .title = "This Space is private",
				     .text = "Sign in with a token of somebody who may see it. Programs send it as "
					     "\"Authorization: Bearer TOKEN\".",
				     .headers = "WWW-Authenticate: Bearer realm=\"Spaced\"\r\n",
				     .link = sign_in_link(x, g, r),
				     .link_text = "Sign in"};
	}
	exchange_page(x, &page);
}

static enum gate_state closed(struct exchange *x, enum gate_verdict verdict, const struct http1_request *r)
{
	refuse(x, verdict, 0, r);
	return GATE_CLOSED;
}

/* ---- tickets ---- */

static bool ticket_opens(struct exchange *x, struct str text, enum ticket_kind kind, struct ticket *out)
{
	const struct gate *g = x->c->conn.w->gate;

	if (!ticket_read(text, kind, g->keys.keys, g->keys.nkeys, wall_seconds(), out) ||
	    strcmp(out->subject, x->target->space_id) != 0)
		return false;
	memcpy(x->user, out->user, TICKET_ID);
	return true;
}

/* The address without the ticket, and a cookie in its place. HttpOnly: scripts of the app do not read it. Lax: a private Space is
 * not framed by foreign sites, and those cannot act with it. */
static enum gate_state exchange_for_cookie(struct exchange *x, const struct ticket *sign, struct str target)
{
	struct gate *g = x->c->conn.w->gate;
	struct ticket cookie = *sign;
	char text[TICKET_TEXT];

	cookie.kind = TICKET_COOKIE;
	cookie.expires = wall_seconds() + TICKET_MAX;
	ticket_make(&cookie, &g->keys.keys[0], text);
	/* "//host" and "/\host" would lead to another host. */
	bool escapes = target.n > 1 && (target.p[1] == '/' || target.p[1] == '\\');
	buf_clear(&g->text);
	buf_addf(&g->text,
		 "Location: %s%.*s\r\nSet-Cookie: %s" COOKIE_ACCESS
		 "=%s; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax%s\r\n",
		 escapes ? "/." : "", (int)target.n, target.p, g->keys.secure ? "__Host-" : "", text, TICKET_MAX,
		 g->keys.secure ? "; Secure" : "");
	buf_adds(&g->text, "Referrer-Policy: no-referrer\r\n");
	struct page page = {.status = 302, .title = "Signed in", .headers = g->text.data};
	exchange_page(x, &page);
	sodium_memzero(text, sizeof text);
	return GATE_CLOSED;
}

/* ---- tokens ---- */

static void digest(const struct gate *g, const char *space_id, struct str token, unsigned char out[DIGEST])
{
	crypto_generichash_state st;

	crypto_generichash_init(&st, g->salt, sizeof g->salt, DIGEST);
	crypto_generichash_update(&st, (const unsigned char *)space_id, TICKET_ID - 1);
	crypto_generichash_update(&st, (const unsigned char *)token.p, token.n);
	crypto_generichash_final(&st, out, DIGEST);
}

static struct answer *slot(struct gate *g, const unsigned char what[DIGEST])
{
	return &g->cache[(what[0] | (unsigned)what[1] << 8) % CACHE];
}

static void send_question(struct worker *w, const struct ask *a)
{
	channel_send(w->control, PROXY_ASK, a->id, a->question.data, a->question.len, NULL, 0);
}

static void ask_free(struct ask *a)
{
	sodium_memzero(a->question.data, a->question.len);
	buf_release(&a->question);
	free(a);
}

/* Without control, the next one is asked; the exchange waits for it until its deadline. */
static void ask_control(struct exchange *x, const unsigned char what[DIGEST], struct str token)
{
	struct worker *w = x->c->conn.w;
	struct gate *g = w->gate;
	struct ask *a = xcalloc(1, sizeof *a);
	struct buf *b = &a->question;
	char secret[TOKEN_MAX + 1];

	memcpy(secret, token.p, token.n);
	secret[token.n] = '\0';
	buf_reserve(b, 255); /* not moved: wiped when it is freed */
	put_str(b, x->target->space_id);
	put_str(b, secret);
	put_bytes(b, x->from.addr.p, x->from.addr.n);
	memcpy(a->what, what, DIGEST);
	a->id = ++g->ids ? g->ids : ++g->ids;
	a->x = x;
	x->ask = a;
	a->next = g->asks;
	g->asks = a;
	g->nasks++;
	if (w->control)
		send_question(w, a);
	sodium_memzero(secret, sizeof secret);
}

static enum gate_state judge_token(struct exchange *x, struct http1_request *r, struct str token, bool authorization)
{
	struct worker *w = x->c->conn.w;
	struct gate *g = w->gate;
	unsigned char what[DIGEST];

	if (!token.n || token.n > TOKEN_MAX || memchr(token.p, '\0', token.n))
		return closed(x, VERDICT_WRONG, r);
	digest(g, x->target->space_id, token, what);
	const struct answer *known = slot(g, what);
	bool fresh = known->until > uv_now(&w->loop) && sodium_memcmp(known->what, what, DIGEST) == 0;
	if (fresh && known->verdict != VERDICT_ENTER)
		return closed(x, known->verdict, r);
	if (!fresh && g->nasks >= ASKS_MAX)
		return closed(x, VERDICT_LATER, r);
	if (!fresh)
		ask_control(x, what, token);
	/* It was for the gate; the app has no use for a token of the visitor. */
	if (authorization)
		credentials_drop_authorization(r);
	if (fresh)
		memcpy(x->user, known->user, TICKET_ID);
	return fresh ? GATE_OPEN : GATE_ASKING;
}

enum gate_state gate_enter(struct exchange *x, struct http1_request *r)
{
	struct gate *g = x->c->conn.w->gate;
	const struct target *t = x->target;
	struct credentials c;
	struct ticket ticket;

	credentials_take(r, g->keys.secure, &g->scratch, &c);
	if (!t->gated)
		return GATE_OPEN;
	if (c.ambiguous) {
		x->refused = REFUSED_ACCESS;
		exchange_error(x, 400, "More than one credential of a kind",
			       "Authorization, x-hf-authorization and __sign may each be given once.");
		return GATE_CLOSED;
	}
	bool sign = c.sign.p && ticket_opens(x, c.sign, TICKET_SIGN, &ticket);
	if (sign && c.navigation)
		return exchange_for_cookie(x, &ticket, r->target);
	if (sign)
		return GATE_OPEN;
	for (size_t i = 0; c.own_page && i < c.ncookies; i++)
		if (ticket_opens(x, c.cookies[i], TICKET_COOKIE, &ticket))
			return GATE_OPEN;
	if (c.hf.p)
		return judge_token(x, r, c.hf, false);
	if (c.bearer.p)
		return judge_token(x, r, c.bearer, true);
	return closed(x, VERDICT_NONE, r);
}

/* ---- what control says ---- */

void gate_forget(struct exchange *x)
{
	x->ask->x = NULL;
	x->ask = NULL;
}

static struct ask *take_ask(struct gate *g, uint32_t id)
{
	for (struct ask **at = &g->asks; *at; at = &(*at)->next)
		if ((*at)->id == id) {
			struct ask *a = *at;
			*at = a->next;
			g->nasks--;
			return a;
		}
	return NULL;
}

/* One that has fallen asleep or woken up meanwhile is the same to a request. */
static bool is_app(const struct target *t)
{
	return t->kind == ROUTE_APP || t->kind == ROUTE_HOLD;
}

/* While control was asked, its Space may have got another route. False: to one that this request is not made ready for. */
static bool follow_route(struct exchange *x)
{
	struct target *old = x->target;
	const struct target *now = route_at(x->c->conn.w->routes.served, old->host);

	if (now == old)
		return true;
	if (!now || is_app(now) != is_app(old) || (!is_app(now) && now->kind != old->kind) ||
	    strcmp(now->site, old->site) != 0 || strcmp(now->space_id, old->space_id) != 0)
		return false;
	x->target = target_ref(now);
	target_unref(old);
	return true;
}

static void settle(struct ask *a, enum gate_verdict verdict, unsigned wait, const char user[TICKET_ID])
{
	struct exchange *x = a->x;

	ask_free(a);
	if (!x)
		return;
	x->ask = NULL;
	if (verdict == VERDICT_ENTER && !follow_route(x))
		verdict = VERDICT_LATER;
	if (verdict != VERDICT_ENTER) {
		refuse(x, verdict, wait, NULL);
		return;
	}
	memcpy(x->user, user, TICKET_ID);
	exchange_admitted(x);
}

bool gate_verdict(struct worker *w, uint32_t id, struct reader *rd)
{
	struct gate *g = w->gate;
	enum gate_verdict verdict = get_u8(rd);
	unsigned wait = get_u32(rd);
	char user[TICKET_ID] = "";
	struct ask *a;

	get_str(rd, user, sizeof user);
	if (!get_known(rd) || verdict < VERDICT_ENTER || verdict > VERDICT_LATER || !(a = take_ask(g, id)))
		return false;
	if (verdict <= VERDICT_FOREIGN) {
		struct answer *s = slot(g, a->what);
		memcpy(s->what, a->what, DIGEST);
		s->verdict = verdict;
		memcpy(s->user, user, TICKET_ID);
		s->until = uv_now(&w->loop) + (verdict == VERDICT_ENTER ? GOOD_MS : BAD_MS);
	}
	settle(a, verdict, wait, user);
	return true;
}

void gate_control_lost(struct worker *w)
{
	struct gate *g = w->gate;

	for (struct ask **at = &g->asks; *at;) {
		struct ask *a = *at;
		if (a->x) {
			at = &a->next;
			continue;
		}
		*at = a->next;
		g->nasks--;
		ask_free(a);
	}
}

/* Who waits for an answer has the whole time for it again. */
void gate_new_control(struct worker *w)
{
	for (const struct ask *a = w->gate->asks; a; a = a->next) {
		if (a->x)
			deadline_set(&a->x->c->conn, DL_CONNECT);
		send_question(w, a);
	}
}

bool gate_secure(const struct worker *w)
{
	return w->gate->keys.secure;
}

bool gate_keys(struct worker *w, struct reader *rd)
{
	struct gate *g = w->gate;
	struct ticket_keys keys;

	if (ticket_keys_decode(rd, &keys) < 0)
		return false;
	g->keys = keys;
	memset(g->cache, 0, sizeof g->cache);
	sodium_memzero(&keys, sizeof keys);
	return true;
}

static bool goes_on(const struct exchange *x)
{
	return x->websocket || x->event_stream || x->hold;
}

static void cut_user(struct client *c, const void *user)
{
	const struct exchange *x = c->x;

	if (x && strcmp(x->user, user) == 0 && (goes_on(x) || !x->res_head))
		client_cut(c, false);
}

bool gate_expel(struct worker *w, struct reader *rd)
{
	char user[TICKET_ID];

	get_str(rd, user, sizeof user);
	if (!get_known(rd) || !ticket_id_ok(user))
		return false;
	client_each(w, cut_user, user);
	return true;
}

bool gate_closed_since(const struct exchange *x)
{
	const struct target *now;

	if (!x->target || x->target->gated)
		return false;
	now = route_at(x->c->conn.w->routes.served, x->target->host);
	return now && now->gated;
}

/* It is not over by itself. What has no answer yet is looked at when that turns out to be a stream. */
static void cut_stream(struct client *c, const void *unused)
{
	const struct exchange *x = c->x;

	(void)unused;
	if (x && goes_on(x) && gate_closed_since(x))
		client_cut(c, false);
}

void gate_cut(struct worker *w)
{
	client_each(w, cut_stream, NULL);
}
