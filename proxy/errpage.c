/* See errpage.h. */
#include "proxy/errpage.h"

#include "base/json_quote.h"

static const struct {
	int status;
	const char *reason;
} reasons[] = {
    {200, "OK"},
    {302, "Found"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {408, "Request Timeout"},
    {410, "Gone"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {417, "Expectation Failed"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {451, "Unavailable For Legal Reasons"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
};

const char *page_reason(int status)
{
	for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
		if (reasons[i].status == status)
			return reasons[i].reason;
	return "Status";
}

static bool names(struct str accept, const char *type)
{
	return accept.n && memmem(accept.p, accept.n, type, strlen(type)) != NULL;
}

enum page_format page_format_of(struct str accept)
{
	if (names(accept, "text/html") || names(accept, "application/xhtml"))
		return PAGE_HTML;
	return names(accept, "json") ? PAGE_JSON : PAGE_TEXT;
}

static void add_html(struct buf *b, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)s[i];
		if (c == '<')
			buf_adds(b, "&lt;");
		else if (c == '>')
			buf_adds(b, "&gt;");
		else if (c == '&')
			buf_adds(b, "&amp;");
		else if (c == '"')
			buf_adds(b, "&quot;");
		else if (c >= 0x20 || c == '\n' || c == '\t')
			buf_addc(b, (char)c);
	}
}

static const char html_start[] = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
				 "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
				 "<meta name=\"robots\" content=\"noindex\">\n";
static const char html_style[] =
    "<style>\n"
    ":root{color-scheme:light "
    "dark;--ink:#1d2330;--soft:#5a6275;--paper:#f6f7f9;--card:#fff;--line:#dfe3ea;--mark:#4353c9}\n"
    "@media(prefers-color-scheme:dark){:root{--ink:#e8eaf0;--soft:#a2abbd;--paper:#14171d;--card:#1c2028;--line:#"
    "313846;"
    "--mark:#96a3ff}}\n"
    "*{box-sizing:border-box}body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.5rem;"
    "background:var(--paper);color:var(--ink);font:1rem/1.6 system-ui,sans-serif}\n"
    "main{width:100%;max-width:42rem;padding:2rem;background:var(--card);border:1px solid "
    "var(--line);border-radius:.75rem}\n"
    ".code{margin:0;color:var(--mark);font-weight:600;font-size:.9rem;letter-spacing:.04em}\n"
    "h1{margin:.25rem 0 .75rem;font-size:1.5rem;line-height:1.25;text-wrap:balance}p{margin:0 0 "
    "1rem;overflow-wrap:anywhere}\n"
    "pre{margin:0 0 1rem;padding:1rem;max-height:22rem;overflow:auto;background:var(--paper);border:1px solid "
    "var(--line);"
    "border-radius:.5rem;font:.82rem/1.5 ui-monospace,monospace;white-space:pre-wrap;overflow-wrap:anywhere}\n"
    "footer{color:var(--soft);font-size:.8rem;overflow-wrap:anywhere}\n"
    "</style>\n</head>\n<body>\n<main>\n";

/* The page of a Space that wakes: asks for the same address again, is held as a program, and reloads when the app itself
 * answers. The policy allows this script alone, by the hash of its bytes (CSP 3, 6.7.3.3). */
static const char wait_script[] =
    "(async()=>{for(;;){try{const r=await fetch(location.href,{method:\"HEAD\",cache:\"no-store\",headers:{\"X"
    "-Scale-Up-Timeout\":\"60\"}});if(!r.headers.has(\"X-Spaced-Hold\")){location.reload();return}}catch(e){}a"
    "wait new Promise(d=>setTimeout(d,1000))}})()";
#define WAIT_POLICY "script-src 'sha256-DMbgkxASwboA8KKZg5Ba1K9lLSB4I6MEus8pwemyGkY='; connect-src 'self'; "
static const char wait_bar[] =
    "<style>.bar{height:3px;margin:0 0 1rem;overflow:hidden;border-radius:2px;background:var(--line)}"
    ".bar::after{content:\"\";display:block;width:35%;height:100%;background:var(--mark);animation:go 1.4s "
    "ease-in-out infinite alternate}"
    "@keyframes go{to{transform:translateX(190%)}}@media(prefers-reduced-motion:reduce){.bar::after{width:100%;"
    "animation:none}}</style>\n<div class=\"bar\" aria-hidden=\"true\"></div>\n";

static void write_html(const struct page *p, const struct page_reader *to, struct buf *b)
{
	const char *text = p->text ? p->text : "";
	const char *log = strstr(text, "\n\n");
	size_t first = log ? (size_t)(log - text) : strlen(text);

	buf_adds(b, html_start);
	if (p->refresh)
		buf_addf(b, "<meta http-equiv=\"refresh\" content=\"%u\">\n", p->retry_after);
	buf_adds(b, "<title>");
	add_html(b, p->title, strlen(p->title));
	buf_adds(b, "</title>\n");
	if (p->waits_for)
		buf_addf(b, "<noscript><meta http-equiv=\"refresh\" content=\"%u\"></noscript>\n", p->retry_after);
	buf_adds(b, html_style);
	if (p->waits_for) {
		buf_adds(b, "<p class=\"code\">");
		add_html(b, p->waits_for, strlen(p->waits_for));
		buf_adds(b, "</p>\n<h1>");
	} else {
		buf_addf(b, "<p class=\"code\">%d %s</p>\n<h1>", p->status, page_reason(p->status));
	}
	add_html(b, p->title, strlen(p->title));
	buf_adds(b, "</h1>\n");
	if (p->waits_for)
		buf_adds(b, wait_bar);
	if (first) {
		buf_adds(b, p->refresh || p->waits_for ? "<p role=\"status\">" : "<p>");
		add_html(b, text, first);
		buf_adds(b, "</p>\n");
	}
	if (p->link) {
		buf_adds(b, "<p><a href=\"");
		add_html(b, p->link, strlen(p->link));
		buf_adds(b, "\">");
		add_html(b, p->link_text, strlen(p->link_text));
		buf_adds(b, "</a></p>\n");
	}
	if (log && log[2]) {
		buf_adds(b, "<pre tabindex=\"0\" role=\"region\" aria-label=\"Log\">");
		add_html(b, log + 2, strlen(log + 2));
		buf_adds(b, "</pre>\n");
	}
	if (to->request_id[0])
		buf_addf(b, "<footer>Request <code>%s</code></footer>\n", to->request_id);
	buf_adds(b, "</main>\n");
	if (p->waits_for)
		buf_addf(b, "<script>%s</script>\n", wait_script);
	buf_adds(b, "</body>\n</html>\n");
}

static void write_json(const struct page *p, const struct page_reader *to, struct buf *b)
{
	buf_adds(b, "{\"error\":");
	json_quote(b, p->title, strlen(p->title));
	if (p->text && p->text[0]) {
		buf_adds(b, ",\"message\":");
		json_quote(b, p->text, strlen(p->text));
	}
	buf_addf(b, ",\"status\":%d", p->status);
	if (to->request_id[0])
		buf_addf(b, ",\"request_id\":\"%s\"", to->request_id);
	buf_adds(b, "}\n");
}

static void write_text(const struct page *p, struct buf *b)
{
	buf_addf(b, "%d %s: %s\n", p->status, page_reason(p->status), p->title);
	if (p->text && p->text[0])
		buf_addf(b, "%s\n", p->text);
}

void page_write(const struct page *p, const struct page_reader *to, struct buf *out)
{
	static const char *const types[] = {"text/plain", "text/html", "application/json"};
	cleanup_buf struct buf body = BUF_INIT;

	if (to->format == PAGE_HTML)
		write_html(p, to, &body);
	else if (to->format == PAGE_JSON)
		write_json(p, to, &body);
	else
		write_text(p, &body);
	buf_addf(out, "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s; charset=utf-8\r\nContent-Length: %zu\r\n",
		 p->status, page_reason(p->status), to->date, types[to->format], body.len);
	buf_adds(out, "Cache-Control: no-store\r\nVary: Accept\r\nX-Content-Type-Options: nosniff\r\n");
	if (to->format == PAGE_HTML)
		buf_addf(out,
			 "Content-Security-Policy: default-src 'none'; %sstyle-src 'unsafe-inline'; base-uri 'none'; "
			 "form-action 'none'\r\n",
			 p->waits_for ? WAIT_POLICY : "");
	if (p->retry_after)
		buf_addf(out, "Retry-After: %u\r\n", p->retry_after);
	if (p->status == 405)
		buf_adds(out, "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n");
	if (to->request_id[0])
		buf_addf(out, "X-Request-Id: %s\r\n", to->request_id);
	if (p->headers)
		buf_adds(out, p->headers);
	if (!to->keep_alive)
		buf_adds(out, "Connection: close\r\n");
	else if (to->minor == 0)
		buf_adds(out, "Connection: keep-alive\r\n");
	buf_adds(out, "\r\n");
	if (!to->head)
		buf_add(out, body.data, body.len);
}
