package kubetest

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
)

// The API server's own kinds are served as protobuf to clients that ask for
// it, through the types of k8s.io/api, as a real one does.

const protobufType = "application/vnd.kubernetes.protobuf"

func wantsProtobuf(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Accept"), protobufType)
}

// toProtobuf is an object with its envelope. It may fail for what no API
// server would have stored: a test's mistake.
func (s *Server) toProtobuf(o Object) []byte {
	text, err := json.Marshal(o)
	if err != nil {
		s.t.Error(err)
		return nil
	}
	typed, _, err := scheme.Codecs.UniversalDeserializer().Decode(text, nil, nil)
	if err != nil {
		s.t.Errorf("%v: %s", err, text)
		return nil
	}
	var b bytes.Buffer
	if err := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(typed, &b); err != nil {
		s.t.Error(err)
	}
	return b.Bytes()
}

// frame is one event of a watch, with its length before it.
func (s *Server) frame(kind string, o Object) []byte {
	e := metav1.WatchEvent{Type: kind, Object: runtime.RawExtension{Raw: s.toProtobuf(o)}}
	b, err := e.Marshal()
	if err != nil {
		s.t.Error(err)
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}
