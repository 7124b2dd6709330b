/* Tickets and credentials out of requests. A ticket that was not made with the key is never read, one that was is read to the same;
 * what is taken out of a request is not left in it, and what remains is still a request. */
#include <stddef.h>
#include <stdint.h>

#include "proxy/credentials.h"
#include "proxy/ticket.h"

#define NOW 1800000000ULL
static const struct ticket_key key = {1, "a key"};

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void take_ticket(const char *p, size_t n)
{
	struct ticket t;
	char text[TICKET_TEXT];

	/* Nobody guesses a MAC: what is read was made in this process. */
	check(!ticket_read((struct str){p, n}, TICKET_SIGN, &key, 1, NOW, &t));
	struct reader rd = reader_of(p, n);
	struct ticket_keys keys;
	if (ticket_keys_decode(&rd, &keys) == 0)
		check(keys.nkeys >= 1 && keys.nkeys <= TICKET_KEYS);
	t = (struct ticket){.kind = TICKET_SIGN, .expires = NOW + 1 + n, .subject = "0123456789abcdef01234567"};
	ticket_make(&t, &key, text);
	check(ticket_read(STRZ(text), TICKET_SIGN, &key, 1, NOW, &t) == (1 + n <= TICKET_MAX));
}

static void take_request(const char *p, size_t n)
{
	static const struct http1_limits limits = {32768, 100, 8192};
	static struct http1_request r;
	static struct buf scratch, again;
	struct credentials c;

	if (http1_parse_request(p, n, &limits, &r))
		return;
	size_t before = r.nfields;
	credentials_take(&r, n & 1, &scratch, &c);
	check(r.nfields <= before && c.ncookies <= CREDENTIALS_COOKIES);
	check(r.target.n && (r.target.p[0] == '/' || r.target.p[0] == '*'));
	for (size_t i = 0; i < r.nfields; i++) {
		check(!str_ieq(r.fields[i].name, "x-hf-authorization"));
		if (str_ieq(r.fields[i].name, "cookie"))
			check(r.fields[i].value.n > 0);
	}
	/* Once is enough: nothing of ours is left for a second look. */
	size_t fields = r.nfields;
	struct str target = {xstrndup(r.target.p, r.target.n), r.target.n};
	struct http1_request second = r;
	credentials_take(&second, n & 1, &again, &c);
	check(c.ncookies == 0 && !c.sign.p && !c.hf.p && second.nfields == fields);
	check(second.target.n == target.n && memcmp(second.target.p, target.p, target.n) == 0);
	free((char *)(uintptr_t)target.p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	char *copy = xmalloc(size);
	memcpy(copy, data + 1, size - 1);
	if (data[0] & 1)
		take_ticket(copy, size - 1);
	else
		take_request(copy, size - 1);
	free(copy);
	return 0;
}
