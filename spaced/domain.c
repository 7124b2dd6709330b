/* See domain.h. */
#include "spaced/domain.h"

#include <ctype.h>
#include <errno.h>
#include <idn2.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"

#define TEXT_MAX 1024

static bool is_wildcard(const char *host)
{
	return strncmp(host, "*.", 2) == 0;
}

static bool ends_below(const char *host, const char *parent)
{
	size_t n = strlen(host), k = strlen(parent);

	return n > k && host[n - k - 1] == '.' && strcmp(host + n - k, parent) == 0;
}

bool domain_covers(const char *pattern, const char *host)
{
	if (strcmp(pattern, host) == 0)
		return true;
	return is_wildcard(pattern) && ends_below(is_wildcard(host) ? host + 2 : host, pattern + 2);
}

/* Letters, digits and inner '-', at least two labels, the last one no number: that would be an IPv4 address to a browser
 * (WHATWG URL, "ends in a number"). */
static bool is_host_name(const char *s)
{
	const char *label = s;
	unsigned labels = 0;

	for (const char *p = s;; p++) {
		if (*p && *p != '.') {
			if (!((*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') || *p == '-'))
				return false;
			continue;
		}
		size_t n = (size_t)(p - label);
		if (n == 0 || n > 63 || label[0] == '-' || p[-1] == '-')
			return false;
		labels++;
		if (!*p)
			break;
		label = p + 1;
	}
	return labels >= 2 && !isdigit((unsigned char)label[0]);
}

/* `text`: as it was given, for messages. */
static int to_ascii(const char *name, const char *text, char out[DOMAIN_MAX + 1], struct err *err)
{
	uint8_t *ascii = NULL;
	int r = idn2_lookup_u8((const uint8_t *)name, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
	cleanup_free char *a = (char *)ascii;

	if (r != IDN2_OK)
		return err_text(err, EINVAL, "`%s` is no host name: %s", text, idn2_strerror(r));
	if (strlen(a) > DOMAIN_MAX || !is_host_name(a))
		return err_text(err, EINVAL, "`%s` is no host name with a domain, as in demo.example.org", text);
	memcpy(out, a, strlen(a) + 1);
	return 0;
}

int domain_check(const char *text, const char *apex, char out[DOMAIN_MAX + 1], struct err *err)
{
	bool wild = is_wildcard(text);
	cleanup_free char *name = xstrdup(text + (wild ? 2 : 0));
	size_t n = strlen(name);
	char host[DOMAIN_MAX + 1];

	if (n > TEXT_MAX)
		return err_text(err, EINVAL, "the name is too long");
	if (n && name[n - 1] == '.')
		name[n - 1] = '\0'; /* the root */
	if (to_ascii(name, text, host, err) < 0)
		return -1;
	if (strlen(host) + (wild ? 2 : 0) > DOMAIN_MAX)
		return err_text(err, EINVAL, "the name is too long");
	if (strcmp(host, apex) == 0 || ends_below(host, apex))
		return err_text(err, EINVAL, "%s is this server's own: names below %s are made from those of Spaces",
				host, apex);
	size_t at = wild ? 2 : 0;
	memcpy(out, "*.", at);
	memcpy(out + at, host, strlen(host) + 1);
	if (domain_covers(out, apex))
		return err_text(err, EINVAL, "%s would cover this server's own names", out);
	return 0;
}
