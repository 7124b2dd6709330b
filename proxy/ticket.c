/* See ticket.h. */
#include "proxy/ticket.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

#define VERSION 1
#define SIGNED 38 /* version, kind, u32 key, u64 expiry, two ids of 12 bytes */
#define WHOLE (SIGNED + crypto_auth_BYTES)

_Static_assert(TICKET_KEY == crypto_auth_KEYBYTES, "a key of crypto_auth");
_Static_assert(TICKET_TEXT == (WHOLE * 4 + 2) / 3 + 1, "unpadded base64");

static void put_be(unsigned char *to, uint64_t v, size_t n)
{
	for (size_t i = n; i-- > 0; v >>= 8)
		to[i] = (unsigned char)v;
}

static uint64_t get_be(const unsigned char *from, size_t n)
{
	uint64_t v = 0;

	for (size_t i = 0; i < n; i++)
		v = v << 8 | from[i];
	return v;
}

bool ticket_id_ok(const char *id)
{
	return strspn(id, "0123456789abcdef") == TICKET_ID - 1 && id[TICKET_ID - 1] == '\0';
}

static void put_id(unsigned char to[12], const char *id)
{
	memset(to, 0, 12);
	if (ticket_id_ok(id))
		sodium_hex2bin(to, 12, id, TICKET_ID - 1, NULL, NULL, NULL);
}

void ticket_make(const struct ticket *t, const struct ticket_key *key, char out[TICKET_TEXT])
{
	unsigned char raw[WHOLE];

	raw[0] = VERSION;
	raw[1] = (unsigned char)t->kind;
	put_be(raw + 2, key->id, 4);
	put_be(raw + 6, t->expires, 8);
	put_id(raw + 14, t->subject);
	put_id(raw + 26, t->user);
	crypto_auth(raw + SIGNED, raw, SIGNED, key->key);
	sodium_bin2base64(out, TICKET_TEXT, raw, sizeof raw, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

bool ticket_read(struct str text, enum ticket_kind kind, const struct ticket_key *keys, size_t nkeys, uint64_t now,
		 struct ticket *out)
{
	unsigned char raw[WHOLE];
	size_t n;
	bool genuine = false;

	if (text.n != TICKET_TEXT - 1 ||
	    sodium_base642bin(raw, sizeof raw, text.p, text.n, NULL, &n, NULL,
			      sodium_base64_VARIANT_URLSAFE_NO_PADDING) != 0 ||
	    n != WHOLE || raw[0] != VERSION || raw[1] != kind)
		return false;
	uint32_t id = (uint32_t)get_be(raw + 2, 4);
	for (size_t i = 0; i < nkeys && !genuine; i++)
		genuine = keys[i].id == id && crypto_auth_verify(raw + SIGNED, raw, SIGNED, keys[i].key) == 0;
	out->kind = kind;
	out->expires = get_be(raw + 6, 8);
	sodium_bin2hex(out->subject, TICKET_ID, raw + 14, 12);
	sodium_bin2hex(out->user, TICKET_ID, raw + 26, 12);
	return genuine && out->expires > now && out->expires - now <= TICKET_MAX;
}

void ticket_keys_encode(const struct ticket_keys *k, struct buf *b)
{
	put_u8(b, k->secure);
	put_str(b, k->sign_in);
	put_u32(b, (uint32_t)k->nkeys);
	for (size_t i = 0; i < k->nkeys; i++) {
		put_u32(b, k->keys[i].id);
		put_bytes(b, k->keys[i].key, TICKET_KEY);
	}
}

int ticket_keys_decode(struct reader *rd, struct ticket_keys *k)
{
	k->secure = get_u8(rd) != 0;
	bool ok = get_str(rd, k->sign_in, sizeof k->sign_in);
	k->nkeys = get_u32(rd);
	ok = ok && k->nkeys >= 1 && k->nkeys <= TICKET_KEYS;
	for (size_t i = 0; ok && i < k->nkeys; i++) {
		k->keys[i].id = get_u32(rd);
		struct str key = get_bytes(rd);
		ok = !rd->bad && key.n == TICKET_KEY;
		if (ok)
			memcpy(k->keys[i].key, key.p, TICKET_KEY);
	}
	/* The address goes into pages and is escaped there; a control byte in it is a mistake all the same. */
	for (const char *p = k->sign_in; ok && *p; p++)
		ok = (unsigned char)*p > 0x20 && (unsigned char)*p < 0x7f;
	if (ok && get_known(rd))
		return 0;
	sodium_memzero(k, sizeof *k);
	return -EBADMSG;
}
