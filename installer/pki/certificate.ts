/**
 * Certificates of the site's own CA, as pure as keys allow: time comes in as an argument, nothing is read or stored.
 * ECDSA on P-256 with SHA-256 (RFC 5758), profile of RFC 5280 strict enough for `openssl verify -x509_strict`, which is
 * what Python 3.13 and later ask for. Keys are PKCS#8 PEM: OpenSSL (MariaDB, uWSGI, Apache, Open vSwitch, Python), GnuTLS
 * (libvirt, QEMU) and Erlang (RabbitMQ) all read that; none of them needs the older `EC PRIVATE KEY`.
 */
import {
  createHash,
  createPrivateKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
  X509Certificate,
} from 'node:crypto';
import { AsnConvert, OctetString } from '@peculiar/asn1-schema';
import {
  AlgorithmIdentifier,
  AttributeTypeAndValue,
  AttributeValue,
  AuthorityKeyIdentifier,
  BasicConstraints,
  Certificate,
  ExtendedKeyUsage,
  Extension,
  Extensions,
  GeneralName,
  id_ce_authorityKeyIdentifier,
  id_ce_basicConstraints,
  id_ce_extKeyUsage,
  id_ce_keyUsage,
  id_ce_subjectAltName,
  id_ce_subjectKeyIdentifier,
  id_kp_clientAuth,
  id_kp_serverAuth,
  KeyIdentifier,
  KeyUsage,
  KeyUsageFlags,
  Name,
  RelativeDistinguishedName,
  SubjectAlternativeName,
  SubjectKeyIdentifier,
  SubjectPublicKeyInfo,
  TBSCertificate,
  Validity,
  Version,
} from '@peculiar/asn1-x509';
import { tryParseIpv4 } from '../../provisioner/core/net/ipv4.js';

/** A certificate and its private key, both PEM. */
export interface KeyPair {
  readonly certificate: string;
  readonly key: string;
}

/** What a certificate must be good for. */
export interface CertificateNames {
  /** DNS names, e.g. short name, full name, name of the API. */
  readonly names: readonly string[];
  /** IPv4 addresses. */
  readonly addresses: readonly string[];
  /** organizationalUnitName of the subject: what the holder is, where a service lets in all of a kind. */
  readonly unit?: string;
}

const DAY_MS = 24 * 60 * 60 * 1000;
export const CA_DAYS = 3650;
/** Longer ones are refused by some clients (Apple, since 2019). */
export const NODE_DAYS = 825;
/** Less than this left: a new one. */
export const RENEWAL_DAYS = 30;
/** Certificates begin a day early: a node's clock may be behind ours. */
const EARLY_MS = DAY_MS;

/** ecdsa-with-SHA256 (RFC 5758, 3.2); no parameters. */
const ECDSA_WITH_SHA256 = '1.2.840.10045.4.3.2';
/** RFC 4519: commonName, organizationName, organizationalUnitName. */
const COMMON_NAME = '2.5.4.3';
const ORGANIZATION = '2.5.4.10';
const UNIT = '2.5.4.11';
/** Upper bound of commonName (RFC 5280, appendix A.1: ub-common-name). */
const MAX_COMMON_NAME = 64;

const nameOf = (commonName: string, unit?: string): Name =>
  new Name(
    [
      { type: ORGANIZATION, text: 'Halligan' },
      ...(unit === undefined ? [] : [{ type: UNIT, text: unit }]),
      { type: COMMON_NAME, text: commonName.slice(0, MAX_COMMON_NAME) },
    ].map(
      ({ type, text }) =>
        new RelativeDistinguishedName([
          new AttributeTypeAndValue({ type, value: new AttributeValue({ utf8String: text }) }),
        ]),
    ),
  );

const extension = (id: string, value: unknown, critical = false): Extension =>
  new Extension({ extnID: id, critical, extnValue: new OctetString(AsnConvert.serialize(value)) });

const bytes = (buffer: Buffer): ArrayBuffer => new Uint8Array(buffer).buffer;

/** RFC 5280, 4.2.1.2 (1): SHA-1 of the key's bits, as an identifier, not for security. */
const keyId = (info: SubjectPublicKeyInfo): ArrayBuffer =>
  bytes(createHash('sha1').update(Buffer.from(info.subjectPublicKey)).digest());

/** Positive, 16 bytes, never with a leading zero (RFC 5280, 4.1.2.2). */
function serialNumber(): ArrayBuffer {
  const serial = randomBytes(16);
  serial[0] = (serial[0]! & 0x3f) | 0x40;
  return bytes(serial);
}

function pem(der: ArrayBuffer): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`;
}

const infoOf = (key: KeyObject): SubjectPublicKeyInfo =>
  AsnConvert.parse(key.export({ type: 'spki', format: 'der' }), SubjectPublicKeyInfo);

function makeKey(): { privateKey: KeyObject; publicKey: KeyObject; pem: string } {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return { privateKey, publicKey, pem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() };
}

interface Body {
  readonly issuer: Name;
  readonly subject: Name;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly key: SubjectPublicKeyInfo;
  readonly extensions: readonly Extension[];
}

function signed(body: Body, signer: KeyObject): string {
  const algorithm = new AlgorithmIdentifier({ algorithm: ECDSA_WITH_SHA256 });
  const tbsCertificate = new TBSCertificate({
    version: Version.v3,
    serialNumber: serialNumber(),
    signature: algorithm,
    issuer: body.issuer,
    validity: new Validity({ notBefore: new Date(body.notBeforeMs), notAfter: new Date(body.notAfterMs) }),
    subject: body.subject,
    subjectPublicKeyInfo: body.key,
    extensions: new Extensions([...body.extensions]),
  });
  const signature = sign('sha256', Buffer.from(AsnConvert.serialize(tbsCertificate)), signer);
  return pem(
    AsnConvert.serialize(
      new Certificate({ tbsCertificate, signatureAlgorithm: algorithm, signatureValue: bytes(signature) }),
    ),
  );
}

/** A new CA: its own key, good for ten years, for end certificates only. */
export function makeCa(options: { readonly siteName: string; readonly nowMs: number }): KeyPair {
  const key = makeKey();
  const info = infoOf(key.publicKey);
  // A site that lost its database makes a new CA: the names of both must differ in the trust stores of its nodes.
  const mark = randomBytes(3).toString('hex');
  const subject = nameOf(`${options.siteName.slice(0, 40)} cloud CA ${mark}`);
  const certificate = signed(
    {
      issuer: subject,
      subject,
      notBeforeMs: options.nowMs - EARLY_MS,
      notAfterMs: options.nowMs + CA_DAYS * DAY_MS,
      key: info,
      extensions: [
        extension(id_ce_basicConstraints, new BasicConstraints({ cA: true, pathLenConstraint: 0 }), true),
        extension(id_ce_keyUsage, new KeyUsage(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign), true),
        extension(id_ce_subjectKeyIdentifier, new SubjectKeyIdentifier(keyId(info))),
      ],
    },
    key.privateKey,
  );
  return { certificate, key: key.pem };
}

/** Lower case, sorted, without repetition; names that are addresses stand among the addresses. */
export function normalizeNames(wanted: CertificateNames): CertificateNames {
  const all = [...wanted.names, ...wanted.addresses].map(n => n.toLowerCase().replace(/\.$/, ''));
  const isAddress = (text: string) => tryParseIpv4(text) !== undefined;
  const names = [...new Set(all.filter(n => !isAddress(n)))].sort();
  const bad = names.find(n => n.length > 253 || !/^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/.test(n));
  if (bad !== undefined) throw new Error(`not a name for a certificate: ${JSON.stringify(bad)}`);
  return { names, addresses: [...new Set(all.filter(isAddress))].sort() };
}

/**
 * A new key and its certificate, for a server and a client at once, good for `NODE_DAYS` or as long as the CA, whichever
 * ends first.
 * @param commonName shown to people; the names that count are in `wanted`
 */
export function issue(ca: KeyPair, commonName: string, wanted: CertificateNames, nowMs: number): KeyPair {
  const authority = new X509Certificate(ca.certificate);
  const issuer = AsnConvert.parse(authority.raw, Certificate).tbsCertificate;
  const key = makeKey();
  const info = infoOf(key.publicKey);
  const { names, addresses } = normalizeNames(wanted);
  if (names.length + addresses.length === 0) throw new Error(`a certificate for ${commonName} needs a name`);
  const notBeforeMs = nowMs - EARLY_MS;
  const certificate = signed(
    {
      issuer: issuer.subject,
      subject: nameOf(commonName, wanted.unit),
      notBeforeMs,
      // The last second is part of the validity.
      notAfterMs: Math.min(notBeforeMs + NODE_DAYS * DAY_MS - 1000, Date.parse(authority.validTo)),
      key: info,
      extensions: [
        extension(id_ce_basicConstraints, new BasicConstraints({ cA: false }), true),
        // Not critical: libvirt and QEMU refuse a critical one without keyEncipherment, which an EC key must not have (RFC 8813).
        extension(id_ce_keyUsage, new KeyUsage(KeyUsageFlags.digitalSignature)),
        extension(id_ce_extKeyUsage, new ExtendedKeyUsage([id_kp_serverAuth, id_kp_clientAuth])),
        extension(id_ce_subjectKeyIdentifier, new SubjectKeyIdentifier(keyId(info))),
        extension(
          id_ce_authorityKeyIdentifier,
          new AuthorityKeyIdentifier({ keyIdentifier: new KeyIdentifier(keyId(issuer.subjectPublicKeyInfo)) }),
        ),
        extension(
          id_ce_subjectAltName,
          new SubjectAlternativeName([
            ...names.map(dNSName => new GeneralName({ dNSName })),
            ...addresses.map(iPAddress => new GeneralName({ iPAddress })),
          ]),
        ),
      ],
    },
    createPrivateKey(ca.key),
  );
  return { certificate, key: key.pem };
}

/** The names in a certificate. */
export function namesOf(certificate: string): CertificateNames {
  const entries = (new X509Certificate(certificate).subjectAltName ?? '').split(', ');
  const after = (prefix: string) => entries.flatMap(e => (e.startsWith(prefix) ? [e.slice(prefix.length)] : []));
  return { names: after('DNS:'), addresses: after('IP Address:') };
}

/** organizationalUnitName of the subject. */
const unitOf = (certificate: X509Certificate): string | undefined => /^OU=(.*)$/m.exec(certificate.subject)?.[1];

/** When a certificate ends, milliseconds since 1970. */
export const expiresMs = (certificate: string): number => Date.parse(new X509Certificate(certificate).validTo);

/**
 * Why a certificate must be replaced, or null. A name or address that is missing is a reason, and so is a DNS name that
 * is no longer wanted; an address too many is none: an interface that is down for a while must not restart every
 * service of its node.
 */
export function needsRenewal(
  pair: KeyPair,
  caCertificate: string,
  wanted: CertificateNames,
  nowMs: number,
): 'issuer' | 'key' | 'names' | 'expiry' | null {
  const certificate = new X509Certificate(pair.certificate);
  const ca = new X509Certificate(caCertificate);
  if (!certificate.checkIssued(ca) || !certificate.verify(ca.publicKey)) return 'issuer';
  if (!certificate.checkPrivateKey(createPrivateKey(pair.key))) return 'key';
  const want = normalizeNames(wanted);
  const have = namesOf(pair.certificate);
  if (want.names.join() !== [...have.names].sort().join()) return 'names';
  if (unitOf(certificate) !== wanted.unit) return 'names';
  if (want.addresses.some(a => !have.addresses.includes(a))) return 'names';
  // One that ends with its CA would get no better by being made again.
  const endsWithCa = Date.parse(certificate.validTo) >= Date.parse(ca.validTo);
  return Date.parse(certificate.validTo) - nowMs < RENEWAL_DAYS * DAY_MS && !endsWithCa ? 'expiry' : null;
}
