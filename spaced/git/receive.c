/* See receive.h. */
#include "spaced/git/receive.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void receive_init(struct receive *r, uint32_t max_refs, uint32_t max_ref_bytes)
{
	*r = (struct receive){.max_refs = max_refs, .max_ref_bytes = max_ref_bytes};
}

void receive_release(struct receive *r)
{
	for (size_t i = 0; i < r->ncommands; i++) {
		free(r->commands[i].name);
		free(r->commands[i].error);
	}
	free(r->commands);
	for (size_t i = 0; i < r->noptions; i++)
		free(r->options[i]);
	*r = (struct receive){0};
}

bool receive_is_oid(struct str s)
{
	if (s.n != 40)
		return false;
	for (size_t i = 0; i < s.n; i++)
		if (!((s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'a' && s.p[i] <= 'f')))
			return false;
	return true;
}

static bool starts(struct str s, const char *prefix)
{
	size_t n = strlen(prefix);

	return s.n >= n && memcmp(s.p, prefix, n) == 0;
}

static bool ends(struct str s, const char *suffix)
{
	size_t n = strlen(suffix);

	return s.n >= n && memcmp(s.p + s.n - n, suffix, n) == 0;
}

static const char *component_error(struct str c)
{
	if (c.n == 0)
		return "bad ref name: empty component";
	if (c.p[0] == '.')
		return "bad ref name: component begins with a dot";
	if (c.p[0] == '-') /* would read as an option to the next program (CVE-2025-21613 class) */
		return "bad ref name: component begins with a dash";
	if (ends(c, ".lock"))
		return "bad ref name: component ends in .lock";
	return NULL;
}

const char *receive_ref_error(struct str name, uint32_t max_bytes)
{
	size_t from;

	if (name.n > max_bytes)
		return "ref name is too long";
	if (starts(name, "refs/heads/"))
		from = strlen("refs/heads/");
	else if (starts(name, "refs/tags/"))
		from = strlen("refs/tags/");
	else
		return "only refs/heads/ and refs/tags/ are accepted here";
	for (size_t i = 0; i < name.n; i++) {
		unsigned char c = (unsigned char)name.p[i];
		if (c <= ' ' || c == 0x7f || strchr("~^:?*[\\", c))
			return "bad ref name: forbidden character";
		if (i && ((c == '.' && name.p[i - 1] == '.') || (c == '{' && name.p[i - 1] == '@')))
			return "bad ref name: \"..\" or \"@{\"";
	}
	if (ends(name, "."))
		return "bad ref name: ends in a dot";
	struct str rest = {name.p + from, name.n - from};
	if (str_eq(rest, "HEAD") || str_eq(rest, "@"))
		return "bad ref name: reserved";
	for (;;) {
		const char *slash = memchr(rest.p, '/', rest.n);
		struct str c = {rest.p, slash ? (size_t)(slash - rest.p) : rest.n};
		const char *why = component_error(c);
		if (why)
			return why;
		if (!slash)
			return NULL;
		rest = (struct str){slash + 1, rest.n - c.n - 1};
	}
}

static int take_capability(struct receive *r, struct str cap, struct err *err)
{
	static const struct {
		const char *name;
		size_t offset;
	} flags[] = {
	    {"report-status", offsetof(struct receive, report)},
	    {"report-status-v2", offsetof(struct receive, report)}, /* v2 adds lines only for rewritten refs */
	    {"side-band-64k", offsetof(struct receive, side_band)},
	    {"atomic", offsetof(struct receive, atomic)},
	    {"push-options", offsetof(struct receive, push_options)},
	};

	for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
		if (str_eq(cap, flags[i].name))
			*(bool *)((char *)r + flags[i].offset) = true;
	if (starts(cap, "object-format=") && !str_eq(cap, "object-format=sha1"))
		return err_set(err, 0, "this server speaks object-format=sha1 only");
	return 0;
}

static int take_capabilities(struct receive *r, struct str caps, struct err *err)
{
	while (caps.n) {
		const char *space = memchr(caps.p, ' ', caps.n);
		size_t n = space ? (size_t)(space - caps.p) : caps.n;
		if (n && take_capability(r, (struct str){caps.p, n}, err) < 0)
			return -1;
		n += space ? 1 : 0;
		caps = (struct str){caps.p + n, caps.n - n};
	}
	return 0;
}

/* "old SP new SP name [NUL capabilities]" */
static int take_command(struct receive *r, struct str line, struct err *err)
{
	const char *nul = memchr(line.p, '\0', line.n);
	struct str head = {line.p, nul ? (size_t)(nul - line.p) : line.n};

	if (nul && r->ncommands)
		return err_set(err, 0, "malformed push: capabilities after the first command");
	if (nul && take_capabilities(r, pkt_chomp((struct str){nul + 1, line.n - head.n - 1}), err) < 0)
		return -1;
	if (!nul)
		head = pkt_chomp(head);
	if (head.n < 83 || head.p[40] != ' ' || head.p[81] != ' ' || !receive_is_oid((struct str){head.p, 40}) ||
	    !receive_is_oid((struct str){head.p + 41, 40}))
		return err_set(err, 0, "malformed push: not a command");
	if (r->ncommands >= r->max_refs)
		return err_set(err, 0, "too many refs in one push, the limit is %u", r->max_refs);
	if (head.n - 82 > 4096)
		return err_set(err, 0, "ref name is too long, the limit is %u bytes", r->max_ref_bytes);

	if ((r->ncommands & (r->ncommands + 1)) == 0) /* grows at 0, 1, 3, 7, ... */
		r->commands = xreallocarray(r->commands, 2 * r->ncommands + 1, sizeof *r->commands);
	struct receive_command *c = &r->commands[r->ncommands++];
	*c = (struct receive_command){.name = xstrndup(head.p + 82, head.n - 82)};
	memcpy(c->old_oid, head.p, 40);
	memcpy(c->new_oid, head.p + 41, 40);
	const char *why = receive_ref_error((struct str){head.p + 82, head.n - 82}, r->max_ref_bytes);
	if (!why && !strcmp(c->old_oid, OID_ZERO) && !strcmp(c->new_oid, OID_ZERO))
		why = "there is no such ref to delete";
	c->error = why ? xstrdup(why) : NULL;
	return 0;
}

/* A clone that is shallow says where its history ends. Whether that is enough is the connectivity check's matter. */
static int take_shallow(struct receive *r, struct str line, struct err *err)
{
	line = pkt_chomp(line);
	if (r->ncommands || !receive_is_oid((struct str){line.p + 8, line.n - 8}))
		return err_set(err, 0, "malformed push: shallow line");
	if (++r->nshallow > 10000)
		return err_set(err, 0, "too many shallow lines in one push");
	return 0;
}

static int take_option(struct receive *r, struct str line, struct err *err)
{
	line = pkt_chomp(line);
	if (r->noptions == RECEIVE_MAX_OPTIONS || line.n > RECEIVE_MAX_OPTION_BYTES)
		return err_set(err, 0, "too many or too long push options");
	/* An option is data for whoever asks push_option(); a separator smuggled in reaches nobody (CVE-2026-3854 class). */
	for (size_t i = 0; i < line.n; i++)
		if ((unsigned char)line.p[i] < ' ' || line.p[i] == 0x7f)
			return err_set(err, 0, "control character in a push option");
	r->options[r->noptions++] = xstrndup(line.p, line.n);
	return 0;
}

int receive_packet(struct receive *r, const struct pkt *pkt, struct err *err)
{
	if (r->state == RECEIVE_PACK || pkt->kind == PKT_DELIM || pkt->kind == PKT_END)
		return err_set(err, 0, "malformed push: unexpected packet");
	if (pkt->kind == PKT_FLUSH) {
		bool options = r->state == RECEIVE_COMMANDS && r->push_options && r->ncommands;
		r->state = options ? RECEIVE_OPTIONS : RECEIVE_PACK;
		return 0;
	}
	if (r->state == RECEIVE_OPTIONS)
		return take_option(r, pkt->data, err);
	if (starts(pkt->data, "shallow "))
		return take_shallow(r, pkt->data, err);
	if (starts(pkt->data, "push-cert"))
		return err_set(err, 0, "signed pushes are not supported");
	return take_command(r, pkt->data, err);
}

bool receive_wants_pack(const struct receive *r)
{
	for (size_t i = 0; i < r->ncommands; i++)
		if (strcmp(r->commands[i].new_oid, OID_ZERO) != 0)
			return true;
	return false;
}

void receive_fail_all(struct receive *r, const char *reason)
{
	for (size_t i = 0; i < r->ncommands; i++)
		if (!r->commands[i].error)
			r->commands[i].error = xstrdup(reason);
}

void receive_report_begin(struct buf *b, const char *unpack)
{
	pkt_addf(b, "unpack %s\n", unpack);
}

void receive_report_ref(struct buf *b, const char *name, const char *error)
{
	if (error)
		pkt_addf(b, "ng %s %s\n", name, error);
	else
		pkt_addf(b, "ok %s\n", name);
}

void receive_report_end(struct buf *b)
{
	pkt_flush(b);
}
