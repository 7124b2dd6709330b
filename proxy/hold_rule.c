/* See hold_rule.h. */
#include "proxy/hold_rule.h"

#include "proxy/errpage.h"

static bool is_field(const struct http1_field *f, const char *name)
{
	return str_ieq(f->name, name);
}

/* Whole seconds; anything else is as if it were not there. */
static bool seconds_of(struct str v, uint64_t *seconds)
{
	return str_digits(v, 9, seconds);
}

struct hold_rule hold_rule_of(const struct http1_request *r, const struct proxy_limits *limits)
{
	bool navigates = r->method == HTTP1_GET && r->body == HTTP1_NO_BODY && !r->websocket &&
			 page_format_of(r->accept) == PAGE_HTML;
	uint64_t asked;

	for (size_t i = 0; i < r->nfields; i++) {
		const struct http1_field *f = &r->fields[i];
		if (is_field(f, "x-scale-up-timeout") && seconds_of(f->value, &asked)) {
			asked *= 1000;
			return (struct hold_rule){.wait_ms = asked < limits->hold_max_ms ? (uint32_t)asked
											 : limits->hold_max_ms};
		}
		/* fetch() of a page that asks for HTML is no navigation (Fetch Metadata, W3C). */
		if (is_field(f, "sec-fetch-mode") && !str_eq(f->value, "navigate"))
			navigates = false;
	}
	if (navigates)
		return (struct hold_rule){.page = true, .wait_ms = limits->hold_page_ms};
	return (struct hold_rule){.wait_ms = limits->hold_ms};
}
