// SPDX-License-Identifier: Apache-2.0

// AES-256-XTS of libcrypto, sector by sector.

#ifndef VMBUS_CRYPTO_H
#define VMBUS_CRYPTO_H

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// A cipher with its key, for one direction; NULL when libcrypto refuses the key.
static inline EVP_CIPHER_CTX *_Nullable vmbus_xts_new(
    const uint8_t *_Nonnull key, bool encrypts) {
  EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
  if (cipher == NULL) return NULL;
  if (EVP_CipherInit_ex(cipher, EVP_aes_256_xts(), NULL, key, NULL, encrypts ? 1 : 0) != 1) {
    EVP_CIPHER_CTX_free(cipher);
    return NULL;
  }
  return cipher;
}

static inline void vmbus_xts_free(EVP_CIPHER_CTX *_Nonnull cipher) {
  EVP_CIPHER_CTX_free(cipher);
}

/// Encrypts or decrypts one sector in place, whose number is the tweak (little-endian).
static inline bool vmbus_xts_sector(
    EVP_CIPHER_CTX *_Nonnull cipher, uint64_t sector, uint8_t *_Nonnull bytes, int count) {
  uint8_t tweak[16] = {0};
  for (int i = 0; i < 8; i++) tweak[i] = (uint8_t)(sector >> (8 * i));
  int length = 0;
  return EVP_CipherInit_ex(cipher, NULL, NULL, NULL, tweak, -1) == 1 &&
         EVP_CipherUpdate(cipher, bytes, &length, bytes, count) == 1 && length == count;
}

#endif
