package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// account is the folder in a pod with its service account's token, the API server's certificate and the namespace.
const account = "/var/run/secrets/kubernetes.io/serviceaccount"

// endpoints asks the API server which Envoys serve, like the controller of a cloud's load balancer.
type endpoints struct {
	url    string
	folder string // account, except in a test
	client *http.Client
}

func newEndpoints(folder, server string) (*endpoints, error) {
	ca, err := os.ReadFile(filepath.Join(folder, "ca.crt"))
	if err != nil {
		return nil, err
	}
	namespace, err := os.ReadFile(filepath.Join(folder, "namespace"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &endpoints{
		url: fmt.Sprintf("https://%s/apis/discovery.k8s.io/v1/namespaces/%s/endpointslices?labelSelector=kubernetes.io/service-name=envoy",
			server, namespace),
		folder: folder,
		client: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}},
	}, nil
}

// list returns host:port of each serving Envoy. A terminating one serves as long as it is ready.
func (e *endpoints) list(ctx context.Context) (addresses []string, err error) {
	token, err := os.ReadFile(filepath.Join(e.folder, "token")) // kubelet renews it
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+string(token))
	response, err := e.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the API server answers %s", response.Status)
	}
	var slices discoveryv1.EndpointSliceList
	if err := json.NewDecoder(response.Body).Decode(&slices); err != nil {
		return nil, err
	}
	for _, slice := range slices.Items {
		for _, port := range slice.Ports {
			for _, endpoint := range slice.Endpoints {
				if s := endpoint.Conditions.Serving; port.Port != nil && (s == nil || *s) {
					addresses = append(addresses, net.JoinHostPort(endpoint.Addresses[0], fmt.Sprint(*port.Port)))
				}
			}
		}
	}
	return addresses, nil
}
