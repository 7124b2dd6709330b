/* DNS messages of an app and of a resolver: any bytes are one of them or none. What is answered is a message that we would
 * understand ourselves; an address never comes out of nothing. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sandbox/dns.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t out[DNS_MESSAGE];
	struct dns_query q, back;
	struct dns_answer a;

	if (dns_parse_answer(data, size, "www.example.com", &a) == 0) {
		if (a.n > DNS_ADDRESSES || (a.n && size < 12 + 14))
			abort();
	} else if (a.n) {
		abort();
	}
	if (dns_parse_query(data, size, &q) < 0)
		return 0;
	if (strlen(q.name) > EGRESS_NAME_MAX || q.question_len > sizeof q.question)
		abort();
	a.n = a.n ? a.n : 1;
	size_t n = dns_build_answer(&q, DNS_OK, a.a, a.n, out);
	if (n > sizeof out)
		abort();
	if (q.name[0]) {
		n = dns_build_query(q.id, q.name, out);
		if (n > sizeof out || dns_parse_query(out, n, &back) < 0 || strcmp(back.name, q.name) != 0)
			abort();
	}
	return 0;
}
