package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"healthgate/e2e/testbed"
)

func cert(_ context.Context, flags *flag.FlagSet, args []string) error {
	dir := flags.String("dir", ".", "`folder` for tls.crt and tls.key")
	keep := flags.Bool("keep", false, "keep an existing certificate that is valid for another hour")
	if err := flags.Parse(args); err != nil {
		return err
	}
	old, err := tls.LoadX509KeyPair(filepath.Join(*dir, "tls.crt"), filepath.Join(*dir, "tls.key"))
	if *keep && err == nil && time.Until(old.Leaf.NotAfter) > time.Hour {
		fmt.Printf("kept %s\n", filepath.Join(*dir, "tls.crt"))
		return nil
	}
	if err = os.MkdirAll(*dir, 0o700); err == nil {
		_, err = testbed.NewCertificate(*dir)
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; it may belong to another user after a chown: remove it (sudo rm -r %s), and try again", err, *dir)
	}
	if err != nil {
		return err
	}
	fmt.Printf(`made %[1]s/tls.crt and %[1]s/tls.key, for localhost, valid for %[2]d days
  in a cluster: kubectl create secret tls envoy-tls --cert %[1]s/tls.crt --key %[1]s/tls.key
  in a container, where user 101 reads a copy of the key:
    sudo install -D --mode 0400 --owner 101 --group 101 %[1]s/tls.key /etc/healthgate/tls/tls.key
`, filepath.Clean(*dir), testbed.CertificateDays)
	return nil
}
