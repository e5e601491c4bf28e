package testbed

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Certificate is a self-signed certificate for localhost.
type Certificate struct {
	CertFile, KeyFile string
	Pool              *x509.CertPool // trusts it
}

// CertificateDays is for how many days a certificate is valid.
const CertificateDays = 30

// NewCertificate writes a certificate for localhost to tls.crt and tls.key in a folder.
func NewCertificate(dir string) (*Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "localhost"},
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().AddDate(0, 0, CertificateDays),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	c := &Certificate{
		CertFile: filepath.Join(dir, "tls.crt"),
		KeyFile:  filepath.Join(dir, "tls.key"),
		Pool:     x509.NewCertPool(),
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	c.Pool.AddCert(certificate)
	for file, block := range map[string]*pem.Block{
		c.CertFile: {Type: "CERTIFICATE", Bytes: der},
		c.KeyFile:  {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// UseCertificate has the first listener present the certificate.
func (c *Config) UseCertificate(certificate *Certificate) {
	tls := filterChain + ".transport_socket.typed_config.common_tls_context.tls_certificates.0"
	c.Set(tls+".certificate_chain.filename", certificate.CertFile)
	c.Set(tls+".private_key.filename", certificate.KeyFile)
}

// Listen has the first listener and admin listen on loopback at the ports, 0 for one that is free; every other listener is at one
// that is free.
func (c *Config) Listen(ingressPort, adminPort int) {
	for i := range c.Get("static_resources.listeners").([]any) {
		port := 0
		if i == 0 {
			port = ingressPort
		}
		c.Set(fmt.Sprintf("static_resources.listeners.%d.address.socket_address", i), map[string]any{"address": "127.0.0.1", "port_value": port})
	}
	c.Set("admin.address.socket_address.port_value", adminPort)
}
