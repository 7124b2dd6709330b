/* Responses: an app is not trusted more than a client. What it says is judged, framed anew and written. See http1.h. */
#include <errno.h>

#include "proxy/http1_impl.h"

#define NOMINATED_MAX 32

static int refuse(struct http1_response *r, const char *why)
{
	r->why = why;
	return -EBADMSG;
}

struct judgement {
	struct str length, coding, upgrade, accept;
	unsigned lengths, codings, upgrades, accepts;
	struct str tokens[NOMINATED_MAX];
	size_t ntokens;
	bool close, keep_alive, upgrade_token;
};

static int read_connection(struct http1_response *r, struct judgement *j, struct str value)
{
	struct str t;

	while (http1_list_next(&value, &t)) {
		if (!http1_is_token(t) || j->ntokens == NOMINATED_MAX)
			return refuse(r, "malformed Connection");
		if (str_ieq(t, "close"))
			j->close = true;
		else if (str_ieq(t, "keep-alive"))
			j->keep_alive = true;
		else if (str_ieq(t, "upgrade"))
			j->upgrade_token = true;
		j->tokens[j->ntokens++] = t;
	}
	return 0;
}

static int sort_fields(struct http1_response *r, size_t n, struct judgement *j)
{
	size_t out = 0;

	for (size_t i = 0; i < n; i++) {
		struct http1_field f = r->fields[i];
		enum known_field id = http1_known(f.name);
		if (id == FIELD_CONTENT_LENGTH) {
			j->length = f.value;
			j->lengths++;
		} else if (id == FIELD_TRANSFER_ENCODING) {
			j->coding = f.value;
			j->codings++;
		} else if (id == FIELD_UPGRADE) {
			j->upgrade = f.value;
			j->upgrades++;
		} else if (id == FIELD_WEBSOCKET_ACCEPT) {
			j->accept = f.value;
			j->accepts++;
		} else if (id == FIELD_CONTENT_TYPE) {
			r->event_stream = f.value.n >= 17 && strncasecmp(f.value.p, "text/event-stream", 17) == 0;
		} else if (id == FIELD_DATE) {
			r->has_date = true;
		} else if (id == FIELD_REQUEST_ID) {
			r->has_request_id = true;
		} else if (id == FIELD_CONNECTION && read_connection(r, j, f.value) < 0) {
			return -EBADMSG;
		}
		bool hop = id == FIELD_CONTENT_LENGTH || id == FIELD_TRANSFER_ENCODING || id == FIELD_CONNECTION ||
			   id == FIELD_UPGRADE || id == FIELD_HOP;
		if (!hop)
			r->fields[out++] = f;
	}
	r->nfields = out;
	return 0;
}

/* RFC 9112 6.3, in its order. */
static int judge_framing(struct http1_response *r, enum http1_method method, const struct judgement *j)
{
	uint64_t length = 0;

	if (j->codings && j->lengths)
		return refuse(r, "both Content-Length and Transfer-Encoding");
	if (j->codings && (j->codings > 1 || !str_ieq(j->coding, "chunked") || r->minor == 0))
		return refuse(r, "a Transfer-Encoding other than one chunked");
	if (j->lengths && (j->lengths > 1 || !http1_length(j->length, &length)))
		return refuse(r, "malformed Content-Length");
	r->length = length;
	r->has_length = false;
	if (r->status < 200 || r->status == 204) {
		r->body = HTTP1_NO_BODY;
	} else if (method == HTTP1_HEAD || r->status == 304) {
		r->body = HTTP1_NO_BODY;
		r->has_length = j->lengths > 0;
	} else if (j->codings) {
		r->body = HTTP1_CHUNKED;
	} else if (j->lengths) {
		r->body = length ? HTTP1_LENGTH : HTTP1_NO_BODY;
		r->has_length = true;
	} else {
		r->body = HTTP1_UNTIL_CLOSE;
	}
	r->keep_alive = r->body != HTTP1_UNTIL_CLOSE && !j->close && (r->minor == 1 || j->keep_alive);
	return 0;
}

/* 101 only when it was asked for, and to nothing else (RFC 9110 7.8). That Sec-WebSocket-Accept answers the key is for
 * the client to check: a false one harms nobody but the app's own visitor. */
static int judge_upgrade(struct http1_response *r, bool asked, const struct judgement *j)
{
	r->upgrade = false;
	if (r->status != 101)
		return 0;
	if (!asked)
		return refuse(r, "101 without being asked");
	if (j->codings || j->lengths || j->upgrades != 1 || !j->upgrade_token || !str_ieq(j->upgrade, "websocket") ||
	    j->accepts != 1 || j->accept.n != 28)
		return refuse(r, "malformed WebSocket handshake");
	r->upgrade = true;
	return 0;
}

#define STATUS_LINE "HTTP/1."

bool http1_begins_response(const char *p, size_t n)
{
	return memcmp(p, STATUS_LINE, n < sizeof STATUS_LINE - 1 ? n : sizeof STATUS_LINE - 1) == 0;
}

int http1_parse_response(const char *p, size_t n, enum http1_method method, bool websocket,
			 const struct http1_limits *limits, struct http1_response *r)
{
	struct http1_head h = {.fields = r->fields,
			       .max = limits->fields < HTTP1_FIELDS_MAX ? limits->fields : HTTP1_FIELDS_MAX};
	struct judgement j = {0};

	r->why = NULL;
	r->event_stream = r->has_date = r->has_request_id = false;
	/* llhttp skips empty lines before a status line: they are no part of it (RFC 9112 2.2 is for servers only). */
	if (n < 13 || !http1_begins_response(p, n) || (p[7] != '0' && p[7] != '1') || p[8] != ' ' ||
	    (p[12] != ' ' && p[12] != '\r'))
		return refuse(r, "malformed status line");
	if (http1_walk(&h, HTTP_RESPONSE, p, n) < 0)
		return refuse(r, h.why);
	r->minor = (uint8_t)(p[7] - '0');
	r->status = (uint16_t)llhttp_get_status_code(&h.parser);
	r->reason = h.reason;
	if (r->status < 100 || r->status > 599)
		return refuse(r, "a status code out of range");
	for (size_t i = 0; i < r->reason.n; i++)
		if ((unsigned char)r->reason.p[i] < 0x20 && r->reason.p[i] != '\t')
			return refuse(r, "a control byte in the reason phrase");
	if (sort_fields(r, h.nfields, &j) < 0 || judge_framing(r, method, &j) < 0 ||
	    judge_upgrade(r, websocket, &j) < 0)
		return -EBADMSG;
	size_t out = 0;
	for (size_t i = 0; j.ntokens && i < r->nfields; i++)
		if (!http1_nominated(j.tokens, j.ntokens, r->fields[i].name))
			r->fields[out++] = r->fields[i];
	if (j.ntokens)
		r->nfields = out;
	return 0;
}

/* Is `name` one of the fields that the route sets itself? */
static bool replaced(const char *headers, struct str name)
{
	while (*headers) {
		size_t n = strcspn(headers, ":");
		if (n == name.n && strncasecmp(headers, name.p, n) == 0)
			return true;
		headers += strcspn(headers, "\n");
		headers += *headers == '\n';
	}
	return false;
}

void http1_write_response(const struct http1_response *r, const struct http1_reply *how, struct buf *out)
{
	char line[16] = "HTTP/1.1 000 ";

	line[9] = (char)('0' + r->status / 100);
	line[10] = (char)('0' + r->status / 10 % 10);
	line[11] = (char)('0' + r->status % 10);
	buf_add(out, line, 13);
	http1_add(out, r->reason);
	buf_add(out, "\r\n", 2);
	for (size_t i = 0; i < r->nfields; i++) {
		const struct http1_field *f = &r->fields[i];
		if (how->headers[0] && replaced(how->headers, f->name))
			continue;
		http1_add(out, f->name);
		buf_add(out, ": ", 2);
		http1_add(out, f->value);
		buf_add(out, "\r\n", 2);
	}
	if (!r->has_date && r->status >= 200) {
		buf_adds(out, "Date: ");
		buf_adds(out, how->date);
		buf_add(out, "\r\n", 2);
	}
	if (!r->has_request_id) {
		buf_adds(out, "X-Request-Id: ");
		http1_add(out, how->request_id);
		buf_add(out, "\r\n", 2);
	}
	buf_adds(out, how->headers);
	http1_add(out, how->cookie);
	if (how->body == HTTP1_CHUNKED)
		buf_adds(out, "Transfer-Encoding: chunked\r\n");
	else if (r->has_length)
		buf_addf(out, "Content-Length: %llu\r\n", (unsigned long long)r->length);
	if (r->upgrade)
		buf_adds(out, "Connection: Upgrade\r\nUpgrade: websocket\r\n");
	else if (!how->keep_alive)
		buf_adds(out, "Connection: close\r\n");
	else if (how->client_minor == 0)
		buf_adds(out, "Connection: keep-alive\r\n");
	buf_add(out, "\r\n", 2);
}
